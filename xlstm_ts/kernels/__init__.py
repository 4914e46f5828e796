"""The bare memory cells of xLSTM: tensors in, tensors out."""

from xlstm_ts.kernels.cells import mlstm, slstm
from xlstm_ts.kernels.dispatch import BACKENDS, resolve
from xlstm_ts.kernels.scan import linear_scan, mlstm_states
from xlstm_ts.kernels.states import MLSTMState, SLSTMState

__all__ = ["BACKENDS", "MLSTMState", "SLSTMState", "linear_scan", "mlstm", "mlstm_states", "resolve", "slstm"]
