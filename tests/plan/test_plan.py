"""Plans: the arithmetic of the model, bad input, tables, and one real compile for a TPU."""

import dataclasses
import functools
import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jaxmnist.cli import plan as command
from jaxmnist.config import apply_overrides, get_config
from jaxmnist.errors import ConfigError, UsageError
from jaxmnist.plan import plan
from jaxmnist.plan.chips import CHIPS, Topology, parse_topology, topology_of
from jaxmnist.plan.compiled import Program
from jaxmnist.plan.make import make_plan
from jaxmnist.plan.model import SHARE, Work, all_reduce_seconds, line, predict
from jaxmnist.plan.show import SCALING_HEADER, draw, program_rows, scaling_rows

PROGRAM = Program(
    compile_seconds=7.0,
    flops=850e6,
    bytes_accessed=220e6,
    row_flops=25e6,
    row_bytes=3e6,
    memory_bytes=16_000_000,
    state_bytes=10_000_000,
    all_reduces=1,
    all_reduce_bytes=3_297_844,
    other_collectives={},
    versions={"jax": "0"},
)
# The line through the bytes of 32 rows: 124 MB, and 3 MB a row.
BYTES = (124e6, 3e6)


def config(**keys):
    texts = {name.replace("__", "."): str(value) for name, value in keys.items()}
    return apply_overrides(get_config(), texts)


def planned(name="v5e:2x4", program=PROGRAM, **keys):
    return make_plan(config(**keys), parse_topology(name), program)


class TestTopology:
    @pytest.mark.parametrize(
        ("name", "chips"),
        [("v5e:16x16", 256), ("v5e:2x4", 8), ("v4:2x2x2", 8), ("v6e:2x4", 8), ("h100:8", 8)],
    )
    def test_a_name_gives_the_chips(self, name, chips):
        assert parse_topology(name).chips == chips
        assert str(parse_topology(name)) == name

    @pytest.mark.parametrize(
        ("name", "fault"),
        [
            ("v5f:2x2", "no chip 'v5f'.*choose one of v4, v5e, v5p, v6e, h100"),
            ("", "no chip ''"),
            ("v5e", "give the chips along 2 axis or axes.*as in v5e:2x2"),
            ("v5e:", "give the chips"),
            ("v5e:2", "give the chips along 2"),
            ("v5e:2x2x2", "give the chips along 2"),
            ("v5e:0x4", "give the chips"),
            ("v5e:2x-4", "give the chips"),
            ("v5e:axb", "give the chips"),
            ("v5e:2x4x", "give the chips"),
            ("v5e:16x32", "together at most 256"),
            ("v4:9999x9999x9999", "together at most 4,096"),
            ("h100:16", "along 1 axis or axes, together at most 8, as in h100:8"),
        ],
    )
    def test_what_is_no_topology_is_refused_with_the_rule(self, name, fault):
        with pytest.raises(UsageError, match=f"topology {name!r}.*{fault}"):
            parse_topology(name)

    def test_only_full_axes_are_rings(self):
        assert parse_topology("v5e:8x16").rings == (False, True)
        assert parse_topology("v4:4x4x8").rings == (True, True, True)
        assert parse_topology("v5p:2x4x4").rings == (False, False, False)
        assert parse_topology("h100:8").rings == (False,)

    @pytest.mark.parametrize("kind", CHIPS)
    def test_powers_of_two_have_a_topology_each(self, kind):
        for power in range(13):
            found = topology_of(kind, 2**power)
            assert found.chips == 2**power
            assert found.chips // found.slices <= CHIPS[kind].slice_chips
            assert max(found.shape) <= 2 * min(found.shape)
        assert str(topology_of("v5e", 4096)) == "16 × v5e:16x16"
        assert str(topology_of("v5p", 4096)) == "v5p:16x16x16"


class TestModel:
    def test_an_all_reduce_of_two_chips_sends_all_bytes_once_over_one_link(self):
        expected = 9e6 / 45e9 + 2 * 1e-6  # 2 · S · 1/2 over one direction, one hop each way
        assert all_reduce_seconds(Topology("v5e", (1, 2)), 9e6) == pytest.approx(expected)

    def test_a_full_torus_uses_both_directions_of_every_axis(self):
        expected = 2 * 9e6 * 255 / 256 / (4 * 45e9) + 2 * 16 * 1e-6
        assert all_reduce_seconds(Topology("v5e", (16, 16)), 9e6) == pytest.approx(expected)

    def test_a_mesh_without_rings_has_one_direction_an_axis(self):
        expected = 2 * 9e6 * 7 / 8 / (2 * 45e9) + 2 * (1 + 3) * 1e-6
        assert all_reduce_seconds(Topology("v5e", (2, 4)), 9e6) == pytest.approx(expected)

    def test_slices_exchange_their_share_over_the_outer_network(self):
        inner = all_reduce_seconds(Topology("v5e", (16, 16)), 9e6)
        outer = 2 * 9e6 / 256 * 2 / 3 / 3.125e9 + 2 * 2 * 20e-6
        assert all_reduce_seconds(Topology("v5e", (16, 16), 3), 9e6) == pytest.approx(inner + outer)

    def test_one_chip_reduces_nothing(self):
        assert all_reduce_seconds(Topology("h100", (1,)), 9e6) == 0

    @pytest.mark.parametrize(
        ("work", "alone"),
        [
            (Work((1e-6, 4e-6), (3e-6, 1e-6)), 21e-6),  # its arithmetic binds
            (Work((1e-6, 1e-6), (8e-6, 3e-6)), 23e-6),  # its memory traffic binds
        ],
    )
    def test_a_chip_takes_the_longer_of_arithmetic_and_memory_and_then_reduces(self, work, alone):
        place = Topology("v5e", (2, 4))
        found = predict(place, work, rows=5, batch_size=40, size=1e6)
        reduce = all_reduce_seconds(place, 1e6)
        assert found.step_seconds == pytest.approx(alone + reduce)
        assert found.weak_efficiency == pytest.approx(alone / (alone + reduce))
        assert found.images_per_second == pytest.approx(40 / (alone + reduce))

    def test_costs_lie_on_a_line_through_those_of_the_program(self):
        assert line(220e6, rows=32, slope=3e6) == pytest.approx(BYTES)
        # What would cost less than nothing, a row or a step without rows, costs about nothing.
        assert line(7.0, rows=32, slope=-1.0) == pytest.approx((7.0, 0.0), abs=1e-6)
        assert line(7.0, rows=32, slope=9.0) == pytest.approx((0.0, 7 / 32))

    def test_strong_scaling_shares_the_batch_and_says_nothing_where_it_cannot(self):
        place, work = Topology("v5e", (2, 4)), Work((0.0, 1e-6), (0.0, 1e-9))
        reduce = all_reduce_seconds(place, 1e6)
        found = predict(place, work, rows=5, batch_size=80, size=1e6)
        assert found.strong_efficiency == pytest.approx(80e-6 / (8 * (10e-6 + reduce)))
        assert predict(place, work, rows=5, batch_size=81, size=1e6).strong_efficiency is None

    @pytest.mark.parametrize(
        "work", [Work((4e-6, 2e-8), (5e-6, 1e-9)), Work((4e-6, 1e-9), (5e-6, 3e-8))]
    )
    def test_the_batch_is_the_smallest_that_keeps_communication_small(self, work):
        place = Topology("v5e", (4, 4))
        batch = predict(place, work, rows=1, batch_size=16, size=3e6).batch_size

        def share(rows):
            found = predict(place, work, rows=rows, batch_size=16, size=3e6)
            return found.all_reduce_seconds / found.step_seconds

        assert batch % 16 == 0
        assert share(batch // 16) <= SHARE < share(batch // 16 - 1)


class TestPlan:
    def test_the_step_of_the_plan_has_the_costs_of_the_program(self):
        found = planned().prediction
        assert found.compute_seconds == pytest.approx(850e6 / (197e12 / 6))
        assert found.memory_seconds == pytest.approx(220e6 / 819e9)
        assert found.images_per_second == pytest.approx(256 / found.step_seconds)

    def test_strong_scaling_goes_along_the_lines_of_the_costs(self):
        found = planned().scaling[4]  # 16 chips: 16 rows each of the 256
        alone, shared = ((BYTES[0] + BYTES[1] * rows) / 819e9 for rows in (256, 16))
        expected = alone / (16 * (shared + found.all_reduce_seconds))
        assert found.strong_efficiency == pytest.approx(expected)

    @pytest.mark.parametrize(
        ("name", "keys", "peak"),
        [
            ("v5e:2x4", {"parallel__matmul_precision": "high"}, 197e12 / 3),
            ("v5e:2x4", {"parallel__matmul_precision": "default"}, 197e12),
            ("v6e:2x4", {"model__dtype": "bfloat16"}, 918e12),
            ("h100:8", {}, 67e12),
            ("h100:8", {"parallel__matmul_precision": "default"}, 494e12),
        ],
    )
    def test_the_peak_is_that_of_dtype_and_precision(self, name, keys, peak):
        found = planned(name, **keys).prediction.compute_seconds
        assert found == pytest.approx(850e6 / peak)

    def test_other_collectives_count_once_an_all_reduce_twice(self):
        gathered = dataclasses.replace(
            PROGRAM, all_reduce_bytes=0, other_collectives={"all-gather": 2 * 3_297_844}
        )
        reduced, gathered = planned().prediction, planned(program=gathered).prediction
        assert gathered.all_reduce_seconds == pytest.approx(reduced.all_reduce_seconds)

    def test_scaling_goes_from_1_to_4096_chips(self):
        found = planned().scaling
        assert [at.chips for at in found] == [2**power for power in range(13)]
        assert found[0].weak_efficiency == found[0].strong_efficiency == 1
        assert all(0 < at.weak_efficiency <= 1 for at in found)
        # 256 rows cannot be shared by more than 256 chips.
        assert [at.strong_efficiency is None for at in found] == [at.chips > 256 for at in found]

    def test_a_batch_of_the_configuration_is_raised_to_the_chips_and_the_plan_says_so(
        self, monkeypatch
    ):
        seen = []
        monkeypatch.setattr(
            "jaxmnist.plan.make.compile_step", lambda c, t: seen.append(c.batch_size) or PROGRAM
        )
        found = plan(config(batch_size=100, train__accumulate=3), "v5e:2x4")
        assert seen == [found.batch_size] == [120]
        assert found.rows == 15
        assert found.notes[0].startswith("batch_size is 120, not 100")
        assert plan(config(batch_size=96), "v5e:2x4").notes == ()

    def test_a_batch_that_is_asked_for_must_be_divisible(self):
        rule = "batch_size=100 cannot be divided by 8 chips times train.accumulate=3"
        with pytest.raises(ConfigError, match=f"{rule}: the nearest valid values are 96 or 120"):
            plan(config(train__accumulate=3), "v5e:2x4", batch_size=100)

    def test_a_batch_of_nothing_is_refused(self):
        with pytest.raises(ConfigError, match="batch_size=0 cannot be divided by 8 chips"):
            plan(config(), "v5e:2x4", batch_size=0)

    @pytest.mark.parametrize(
        ("name", "package", "extra"),
        [("v5e:2x4", "libtpu", "plan"), ("h100:8", "jax_cuda12_plugin", "cuda")],
    )
    def test_a_compiler_that_is_missing_is_named_with_its_extra(
        self, name, package, extra, monkeypatch
    ):
        real = importlib.util.find_spec
        hidden = ("libtpu", "jax_cuda12_plugin")
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda n, *a: None if n in hidden else real(n, *a)
        )
        text = rf"needs the package {package}: pip install 'jaxmnist\[{extra}\]'"
        with pytest.raises(UsageError, match=text):
            plan(config(), name)

    def test_the_last_word_of_a_compiler_that_dies_is_shown(self, monkeypatch):
        monkeypatch.setattr(importlib.util, "find_spec", lambda *a: True)
        code = "import sys; sys.stderr.write('first\\nno core left'); sys.exit(3)"
        run = functools.partial(subprocess.run, [sys.executable, "-c", code])
        monkeypatch.setattr(
            "jaxmnist.plan.compiled.subprocess.run", lambda command, **options: run(**options)
        )
        with pytest.raises(UsageError, match="'v5e:2x4' ended with 3: no core left"):
            plan(config(), "v5e:2x4")


class TestShow:
    def test_tables_have_a_cell_for_each_column(self):
        rows = scaling_rows(planned())
        assert len(rows) == 13
        assert {len(row) for row in rows} == {len(SCALING_HEADER)}
        assert rows[9][:2] == ["512", "2 × v5e:16x16"]
        assert rows[9][5] == "–"
        cells = dict(program_rows(planned()))
        assert cells["all-reduces"] == "1 of 3,297,844 bytes together"
        assert cells["memory of a chip"] == "16.0 MB of 16.0 GB (0.10%)"

    def test_a_plan_is_json(self):
        found = json.loads(json.dumps(planned().to_dict()))
        assert found["program"]["all_reduce_bytes"] == 3_297_844
        assert found["prediction"]["chips"] == 8
        assert len(found["scaling"]) == 13
        assert found["config"]["batch_size"] == 256

    def test_a_picture_is_drawn(self, tmp_path):
        pytest.importorskip("matplotlib")
        draw(planned(), tmp_path / "plan.svg")
        assert "<svg" in (tmp_path / "plan.svg").read_text()


def test_the_document_shows_the_model_as_it_is():
    program = Path(__file__).parents[2] / "docs" / "make_scaling.py"
    command = [sys.executable, str(program), "--check"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


class Flag:
    def __init__(self, value, *, present=True):
        self.value, self.present = value, present


class Flags(dict):
    """Parsed flags as the command line gives them."""

    __getattr__ = dict.get

    def __getitem__(self, name):
        return Flag(self.get(name))


@pytest.fixture
def run(monkeypatch):
    """Runs the command with a compiler that answers at once."""
    monkeypatch.setattr("jaxmnist.plan.make.compile_step", lambda config, topology: PROGRAM)
    monkeypatch.setattr(command, "configuration", lambda flags: config())
    return lambda **flags: command.plan(Flags(flags))


class TestCommand:
    def test_it_says_what_is_computed_and_what_is_a_model(self, run, capsys):
        run(topology="v5e:16x16")
        out = capsys.readouterr().out
        assert "v5e:16x16: TPU v5e, batch 256, 1 rows a chip" in out
        computed, _, rest = out.partition("A model, not a measurement")
        assert "Computed: read from the train step that XLA compiled" in computed
        assert "3,297,844 bytes" in computed
        assert "images/s" not in computed
        assert "images/s" in rest
        assert "source: https://docs.cloud.google.com/tpu/docs/v5e" in rest
        assert "assumed, not published" in rest

    def test_json_is_one_line(self, run, capsys):
        run(topology="h100:8", json=True)
        (line,) = capsys.readouterr().out.splitlines()
        assert json.loads(line)["chip"] == "NVIDIA H100 SXM"

    def test_it_needs_a_topology(self, run):
        with pytest.raises(UsageError, match="needs --topology, such as v5e:16x16"):
            run()

    def test_a_picture_of_another_kind_is_refused_before_anything_is_compiled(self, run, capsys):
        with pytest.raises(UsageError, match=r"--picture=plan.doc: end it in one of .svg"):
            run(topology="v5e:2x4", picture="plan.doc")
        assert capsys.readouterr().out == ""


@pytest.mark.slow
class TestCompiled:
    """Needs libtpu (extra `plan`); takes minutes."""

    def test_the_step_for_a_tpu_has_exactly_one_all_reduce(self, monkeypatch):
        before = dict(os.environ)
        found = plan(config(parallel__matmul_precision="default"), "v5e:2x4")
        program = found.program
        assert (program.all_reduces, program.other_collectives) == (1, {})
        # The gradient of every parameter, and the three sums of the metrics.
        assert program.all_reduce_bytes == 4 * (824_458 + 3)
        # Two moments of Adam, and the parameters; the rest is scalars.
        assert 0 <= program.state_bytes - 3 * 4 * 824_458 < 100
        assert program.state_bytes < program.memory_bytes < 16e9
        # By the textbook 27.4 MFLOP a row (multiply-adds count two), and the optimizer.
        assert program.flops == pytest.approx(32 * 27.4e6, rel=0.1)
        assert program.row_flops == pytest.approx(27.4e6, rel=0.1)
        assert os.environ == before

    @pytest.mark.parametrize(
        "name", ["v5e:16x16", "v5e:2x4", "v4:2x2x2", "v5p:2x2x2", "v6e:2x4", "h100:8"]
    )
    def test_the_default_step_is_planned_in_four_minutes(self, name):
        if name == "h100:8" and not importlib.util.find_spec("jax_cuda12_plugin"):
            pytest.skip("jax_cuda12_plugin is not installed")
        start = time.monotonic()
        found = plan(config(), name)
        assert time.monotonic() - start < 240
        assert found.program.all_reduces == 1
        assert found.program.other_collectives == {}
        assert found.program.memory_bytes < found.memory_capacity_bytes
        assert found.prediction.chips * found.rows == 256

    def test_strategies_and_microbatches_reduce_once_too(self):
        for keys in (
            {"parallel__strategy": "pmap"},
            {"parallel__strategy": "jit"},
            {"train__accumulate": 4},
        ):
            tiny = {"model__name": "support:Tiny", "parallel__matmul_precision": "default"}
            found = plan(config(**tiny, **keys), "v5e:2x2").program
            assert (found.all_reduces, found.other_collectives) == (1, {}), keys

    def test_what_the_compiler_refuses_is_a_sentence(self):
        with pytest.raises(UsageError, match=r"XLA cannot compile for 'v5e:3x5': .*divisible"):
            plan(config(), "v5e:3x5")

    def test_what_the_configuration_lacks_is_said_by_the_process_that_compiles(self):
        with pytest.raises(UsageError, match="nowhere:Model"):
            plan(config(model__name="nowhere:Model"), "v5e:2x4")
