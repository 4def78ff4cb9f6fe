"""Adapters: their files, what they mean on a model, and the checks that both backends share.

Files are PEFT's, read and written without PEFT, so that an adapter moves between backends; mlx-lm's
are read. `resolve` says which layers have which rank and scale. Left out: computing with them.
"""

from offapi.adapter.checks import check_finite as check_finite
from offapi.adapter.checks import check_fit as check_fit
from offapi.adapter.checks import check_full as check_full
from offapi.adapter.checks import check_state as check_state
from offapi.adapter.checks import draw_matrices as draw_matrices
from offapi.adapter.checks import misfit as misfit
from offapi.adapter.checks import not_finite as not_finite
from offapi.adapter.folder import BASE_HASH as BASE_HASH
from offapi.adapter.folder import Base as Base
from offapi.adapter.folder import doubt_base as doubt_base
from offapi.adapter.folder import encode as encode
from offapi.adapter.folder import in_bits as in_bits
from offapi.adapter.folder import read as read
from offapi.adapter.folder import read_base as read_base
from offapi.adapter.folder import read_requested as read_requested
from offapi.adapter.folder import read_spec as read_spec
from offapi.adapter.folder import resolve_arrays as resolve_arrays
from offapi.adapter.folder import weights_file as weights_file
from offapi.adapter.names import CONFIG as CONFIG
from offapi.adapter.names import FIT as FIT
from offapi.adapter.names import MAGNITUDE as MAGNITUDE
from offapi.adapter.names import PREFIX as PREFIX
from offapi.adapter.names import WEIGHTS as WEIGHTS
from offapi.adapter.names import Shapes as Shapes
from offapi.adapter.names import magnitude as magnitude
from offapi.adapter.names import module as module
from offapi.adapter.names import modules as modules
from offapi.adapter.names import parameter as parameter
from offapi.adapter.targets import Linears as Linears
from offapi.adapter.targets import ModuleLora as ModuleLora
from offapi.adapter.targets import all_linear as all_linear
from offapi.adapter.targets import resolve as resolve
from offapi.adapter.targets import shapes_of as shapes_of
