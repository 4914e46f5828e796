"""The layers against the bare cells, and the small parts of blocks against slow forms of themselves."""

import pytest
import torch
from helpers import generator, normal, relative_rms

from xlstm_ts.errors import ParameterError, ShapeError
from xlstm_ts.kernels import mlstm, slstm
from xlstm_ts.nn import MLSTM, SLSTM
from xlstm_ts.nn.layers import CausalConv, Dropout, HeadwiseLinear, set_dropout_generator

LAYERS = [SLSTM, MLSTM]
PROJECTIONS = ["dense", "headwise"]
B, T, D, HIDDEN, HEADS = 3, 9, 6, 10, 2  # all different: a swapped axis cannot pass


def make_layer(layer_class, projection="dense", forget_gate="sigmoid", seed=0):
    """A float64 layer whose weights are all random, those that start at zero too."""
    layer = layer_class(D, HIDDEN, HEADS, projection=projection, forget_gate=forget_gate).double()
    randomise(layer, seed)
    return layer


def randomise(module, seed=0):
    draw = generator(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draw, dtype=torch.float64) * 0.4)


def assert_same(got, expected):
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-13)


def assert_same_state(got, expected):
    for name, part in zip(got._fields, got, strict=True):
        assert_same(part, getattr(expected, name))


@pytest.mark.parametrize("layer_class", LAYERS)
def test_layers_map_shapes_like_torch_lstm_with_batch_first(layer_class):
    x = normal(B, T, D)
    expected, _ = torch.nn.LSTM(D, HIDDEN, batch_first=True).double()(x)

    out, state = make_layer(layer_class)(x)

    assert out.shape == expected.shape
    assert out.dtype == x.dtype
    assert all(part.shape[0] == B for part in state)


@pytest.mark.parametrize("layer_class", LAYERS)
@pytest.mark.parametrize("projection", PROJECTIONS)
@pytest.mark.parametrize("forget_gate", ["sigmoid", "exp"])
@pytest.mark.parametrize("cut", [1, 4, T - 1])
def test_two_pieces_with_carried_state_equal_one(layer_class, projection, forget_gate, cut):
    layer = make_layer(layer_class, projection, forget_gate)
    x = normal(B, T, D)
    whole, last = layer(x)

    first, middle = layer(x[:, :cut])
    second, end = layer(x[:, cut:], middle)

    assert_same(torch.cat([first, second], 1), whole)
    assert_same_state(end, last)


@pytest.mark.parametrize("layer_class", LAYERS)
def test_the_initial_state_is_what_no_state_means(layer_class):
    layer, x = make_layer(layer_class), normal(B, T, D)
    out, last = layer(x)

    given, end = layer(x, layer.initial_state(B))

    assert torch.equal(given, out)
    assert all(torch.equal(a, b) for a, b in zip(end, last, strict=True))


@pytest.mark.parametrize("forget_gate", ["sigmoid", "exp"])
def test_slstm_is_a_projection_and_the_cell_per_gate_in_the_order_i_f_z_o(forget_gate):
    layer, x = make_layer(SLSTM, forget_gate=forget_gate), normal(B, T, D)
    width = HIDDEN // HEADS
    rows_if = layer.project_if.weight.view(HEADS, 2, width, D)
    rows_zo = layer.project_zo.weight.view(HEADS, 2, width, D)
    per_gate = [rows_if[:, 0], rows_if[:, 1], rows_zo[:, 0], rows_zo[:, 1]]
    gates = torch.stack([torch.einsum("btd,hkd->bthk", x, rows) for rows in per_gate], 2) + layer.gate_bias
    expected, last = slstm(gates, layer.recurrent_weights, backend="reference", forget_gate=forget_gate)

    out, state = layer(x)

    assert_same(out, expected.flatten(-2))
    assert_same_state(state, last)


def test_slstm_input_and_forget_gates_read_the_gate_input_and_the_others_do_not():
    layer, x, gate_input = make_layer(SLSTM), normal(B, T, D), normal(B, T, D, seed=1)
    pairs = [layer.project_if(gate_input), layer.project_zo(x)]
    gates = torch.cat([pair.view(B, T, HEADS, 2, -1) for pair in pairs], 3).transpose(2, 3) + layer.gate_bias
    expected, _ = slstm(gates, layer.recurrent_weights, backend="reference")

    out, _ = layer(x, gate_input=gate_input)

    assert_same(out, expected.flatten(-2))


@pytest.mark.parametrize("forget_gate", ["sigmoid", "exp"])
def test_mlstm_is_projections_gates_the_cell_and_an_output_gate(forget_gate):
    layer, x = make_layer(MLSTM, forget_gate=forget_gate), normal(B, T, D)
    memory, width = layer.memory, HIDDEN // HEADS
    projections = (memory.project_q, memory.project_k, memory.project_v)
    q, k, v = (torch.einsum("btd,hkd->bthk", x, part.weight.view(HEADS, width, D)) for part in projections)
    raw = (x @ memory.memory_gate_weight.T).unflatten(-1, (2, HEADS)) + memory.memory_gate_bias
    read, last = mlstm(q, k, v, raw[:, :, 0], raw[:, :, 1], backend="reference", forget_gate=forget_gate)
    output_gate = torch.sigmoid(x @ layer.output_gate.weight.T + layer.output_gate.bias)

    out, state = layer(x)

    torch.testing.assert_close(out, output_gate * read.flatten(-2), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(
        state.c * state.m.exp()[..., None, None], last.c * last.m.exp()[..., None, None], rtol=1e-10, atol=1e-12
    )


def headwise_twin(layer_class):
    """A head-wise layer, and the dense layer whose matrices are its block-diagonal ones."""
    headwise, dense = make_layer(layer_class, "headwise"), make_layer(layer_class, "dense")
    for name, part in headwise.named_modules():
        if isinstance(part, HeadwiseLinear):
            blocks = [block.T for block in part.headwise_weight]
            dense.get_submodule(name).weight = torch.nn.Parameter(torch.block_diag(*blocks))
    rest = {name: value for name, value in headwise.state_dict().items() if "headwise_weight" not in name}
    missing = dense.load_state_dict(rest, strict=False).missing_keys
    assert all(name.startswith(("project", "memory.project")) for name in missing)
    return headwise, dense


@pytest.mark.parametrize("layer_class", LAYERS)
def test_a_headwise_layer_is_the_dense_layer_with_block_diagonal_matrices(layer_class):
    headwise, dense = headwise_twin(layer_class)
    x = normal(B, T, D)

    got, expected = headwise(x)[0], dense(x)[0]

    assert_same(got, expected)


@pytest.mark.parametrize("layer_class", LAYERS)
@pytest.mark.parametrize("forget_gate", ["sigmoid", "exp"])
def test_the_forget_gate_and_the_backend_reach_the_cell(layer_class, forget_gate):
    layer = make_layer(layer_class, forget_gate=forget_gate)
    slow = layer_class(D, HIDDEN, HEADS, forget_gate=forget_gate, backend="reference").double()
    other = layer_class(D, HIDDEN, HEADS, forget_gate={"sigmoid": "exp", "exp": "sigmoid"}[forget_gate]).double()
    slow.load_state_dict(layer.state_dict())
    other.load_state_dict(layer.state_dict())
    x = normal(B, T, D)

    out = layer(x)[0]

    torch.testing.assert_close(out, slow(x)[0], rtol=1e-10, atol=1e-12)
    assert not torch.allclose(out, other(x)[0])


@pytest.mark.parametrize("layer_class", LAYERS)
@pytest.mark.parametrize("projection", PROJECTIONS)
def test_gradients_reach_every_parameter_of_a_layer(layer_class, projection):
    layer = make_layer(layer_class, projection)

    layer(normal(B, T, D))[0].square().sum().backward()

    assert [name for name, p in layer.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


@pytest.mark.parametrize("layer_class", LAYERS)
@pytest.mark.parametrize("shape", [(B, T, D + 1), (B, D), (B, T, 1, D)], ids=str)
def test_an_input_of_the_wrong_shape_is_named_with_the_shape_expected(layer_class, shape):
    layer = make_layer(layer_class)

    with pytest.raises(ShapeError) as raised:
        layer(normal(*shape))

    name = layer_class.__name__
    assert str(raised.value) == f"{name}: input has shape {shape}; expected (batch, steps, {D})."


@pytest.mark.parametrize("layer_class", LAYERS)
@pytest.mark.parametrize("change", [{"dtype": torch.float64}, {"dtype": torch.int64}, {"device": "meta"}], ids=str)
@pytest.mark.parametrize("steps", [1, 40], ids="{} steps".format)
def test_an_input_of_another_dtype_or_device_is_named_with_the_remedy(layer_class, change, steps):
    layer = make_layer(layer_class).float()
    x = torch.zeros(B, steps, D, dtype=torch.float32).to(**change)

    with pytest.raises(ShapeError) as raised:
        layer(x)

    assert str(raised.value) == (
        f"{layer_class.__name__}: input is {x.dtype} on {x.device}, the weights torch.float32 on cpu. "
        "Bring them together with .to()."
    )


@pytest.mark.parametrize("layer_class", LAYERS)
def test_under_autocast_an_input_may_be_of_the_short_dtype(layer_class):
    layer, x = make_layer(layer_class).float(), normal(B, T, D).float()
    with torch.no_grad():
        expected, _ = layer(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            got, _ = layer(x.bfloat16())

    assert relative_rms(got, expected) < 0.1  # bfloat16 has numbers every 2^-7, and a read is a quotient of sums


@pytest.mark.parametrize("layer_class", LAYERS)
@pytest.mark.parametrize(
    ("sizes", "width", "heads"),
    [
        ((D, 9, 2), 9, 2),
        ((D, 8, 0), 8, 0),
        ((D, 0, 2), 0, 2),
        ((D, 8, 2.0), 8, 2.0),
        ((7, 8, 2, "headwise"), 7, 2),
    ],
    ids=["hidden size not divisible", "no heads", "no width", "heads not whole", "input not divisible"],
)
def test_widths_that_heads_cannot_share_are_refused_by_name(layer_class, sizes, width, heads):
    projection = sizes[3] if len(sizes) > 3 else "dense"

    with pytest.raises(ParameterError) as raised:
        layer_class(*sizes[:3], projection=projection)

    expected = f"{layer_class.__name__}: a width of {width} cannot be split over num_heads={heads}. Give positive"
    assert str(raised.value).startswith(expected)


@pytest.mark.parametrize("layer_class", LAYERS)
def test_an_unknown_projection_is_refused_with_the_known_ones(layer_class):
    with pytest.raises(ParameterError, match='projection=\'sparse\' is unknown; expected "dense" or "headwise"'):
        layer_class(D, HIDDEN, HEADS, projection="sparse")


def test_an_input_width_that_heads_cannot_share_is_fine_for_a_dense_layer():
    out, _ = SLSTM(7, 8, 2)(torch.zeros(1, 1, 7))

    assert out.shape == (1, 1, 8)


@pytest.mark.parametrize("heads", [1, 2, 3])
def test_headwise_linear_is_a_block_diagonal_matrix(heads):
    layer = HeadwiseLinear(5 * heads, 7 * heads, heads).double()
    randomise(layer)
    x = normal(B, T, 5 * heads)

    assert_same(layer(x), x @ torch.block_diag(*layer.headwise_weight))


def naive_convolution(conv, x, tail):
    width, size = conv.conv_weight.shape
    joined = torch.cat([tail, x], 1)
    out = torch.empty_like(x)
    for t in range(x.shape[1]):
        for d in range(width):
            total = conv.bias[d]
            for j in range(size):  # the last weight is the present step's
                total = total + conv.conv_weight[d, j] * joined[:, t + j, d]
            out[:, t, d] = total * torch.sigmoid(total)
    return out


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("steps", [1, 3, 7])
def test_causal_convolution_equals_the_naive_one_and_hands_on_its_last_inputs(size, steps):
    conv = CausalConv(3, size).double()
    randomise(conv)
    x, tail = normal(2, steps, 3), normal(2, size - 1, 3, seed=1)

    out, new_tail = conv(x, tail)

    assert_same(out, naive_convolution(conv, x, tail))
    assert torch.equal(new_tail, torch.cat([tail, x], 1)[:, steps:])


def test_causal_convolution_starts_from_zeros_and_reads_nothing_later():
    conv = CausalConv(3, 4).double()
    randomise(conv)
    x = normal(2, 8, 3)
    changed = x.clone()
    changed[:, 5:] += 1

    before, _ = conv(x, conv.initial_state(2))
    after, _ = conv(changed, conv.initial_state(2))

    assert torch.equal(conv.initial_state(2), torch.zeros(2, 3, 3, dtype=torch.float64))
    assert torch.equal(after[:, :5], before[:, :5])
    assert not torch.equal(after[:, 5:], before[:, 5:])


def test_dropout_draws_from_the_generator_that_it_was_handed():
    part = Dropout(0.3)
    network = torch.nn.Sequential(torch.nn.Sequential(part))
    x = torch.ones(100, 50)

    set_dropout_generator(network, generator(5))
    first, second = part(x), part(x)
    set_dropout_generator(network, generator(5))
    again = part(x)

    assert torch.equal(first, again)
    assert not torch.equal(first, second)


def test_dropout_leaves_the_global_generator_where_it_was():
    part = Dropout(0.3)
    part.generator = generator(5)
    before = torch.get_rng_state()

    part(torch.ones(100))

    assert torch.equal(torch.get_rng_state(), before)


def test_dropout_zeroes_its_rate_and_scales_the_rest_up():
    part = Dropout(0.25)
    part.generator = generator(0)

    out = part(torch.ones(20_000, dtype=torch.float64))

    assert set(out.unique().tolist()) == {0.0, 1 / 0.75}
    assert float((out == 0).double().mean()) == pytest.approx(0.25, abs=0.01)


def test_dropout_is_the_identity_outside_training_and_at_rate_zero():
    x = normal(4, 5)

    assert Dropout(0.9).eval()(x) is x
    assert Dropout(0.0)(x) is x
