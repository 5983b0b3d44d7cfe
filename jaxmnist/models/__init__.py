"""Models and the layers that keep the library's promises."""

from jaxmnist.models.build import ModelFunctions as ModelFunctions
from jaxmnist.models.build import make_model as make_model
from jaxmnist.models.build import model_functions as model_functions
from jaxmnist.models.cnn import CNN as CNN
from jaxmnist.models.cnn import CONVOLUTIONS as CONVOLUTIONS
from jaxmnist.models.cnn import normalize as normalize
from jaxmnist.models.layers import BatchNorm as BatchNorm
from jaxmnist.models.layers import Dropout as Dropout
from jaxmnist.models.rows import row_keys as row_keys
