"""`python -m jaxmnist` is the command `jaxmnist`."""

from jaxmnist.cli.main import run

if __name__ == "__main__":
    run()
