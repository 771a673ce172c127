"""The recommender: the cell with its inputs, and the query that the score makes of its states.

Input of an event: item vector + event-type vector + "negative" vector + time-gap vector. Output of a state:
a query vector, tied to the item vectors, and the gates of the score's other parts, which
eddy.models.scoring.scorer combines. Item statistics never enter here: a state is a function of its events and
the weights.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding_bag, softplus

from eddy.models.config import ModelConfig
from eddy.models.kernels.compiled_maths import GAP_BUCKETS
from eddy.models.kernels.input_loops import input_vectors
from eddy.models.logs.item_features import Bags
from eddy.models.network.cells import make_cell
from eddy.models.network.mixture import Mixture
from eddy.models.tensors import SPARSE_GATES, Inputs, Query, gap_bucket

TREND = 4
"""Learned functions of an item's moving popularities in the score."""

TREND_UNIT = 5.0
"""What these functions read are log popularities in this unit, so that they are of the order of 1."""


class Recommender(nn.Module):
    """V items (+ buckets), T event types (+ unknown), one cell."""

    feature_centre: Tensor

    def __init__(self, config: ModelConfig, items: int, types: int) -> None:
        super().__init__()
        self.config = config
        self.items = items
        self.types = types
        self.item_vectors = nn.Parameter(
            torch.randn(items + config.item_buckets, config.dim) * config.dim**-0.5
        )
        self.item_bias = nn.Parameter(torch.zeros(items))
        if config.features:  # vector and bias, of items that have none of their own
            self.feature_vectors = nn.Parameter(torch.zeros(config.features, config.dim + 1))
            self.register_buffer("feature_centre", torch.zeros(config.dim + 1))
        self.type_vectors = nn.Parameter(torch.randn(types + 1, config.dim) * 0.05)
        self.negative_vector = nn.Parameter(torch.zeros(config.dim))
        self.gap_vectors = nn.Parameter(torch.zeros(GAP_BUCKETS, config.dim))
        self.cell = make_cell(config)
        self.project = nn.Linear(config.hidden, config.dim)
        self.idle_vectors = nn.Parameter(torch.zeros(GAP_BUCKETS, config.dim))
        self.idle_gates = nn.Parameter(torch.zeros(GAP_BUCKETS, config.hidden))
        self.dropout = nn.Dropout(config.dropout)
        lives = len(config.half_lives_ms)
        self.columns = lives + TREND if lives else 0
        if lives:
            shapes = nn.Linear(16, TREND)
            nn.init.normal_(shapes.weight, std=0.1)  # not zeros: outputs that begin alike would stay alike
            nn.init.zeros_(shapes.bias)
            self.trend = nn.Sequential(nn.Linear(lives, 16), nn.Tanh(), shapes)
        gates = 2 + self.columns + SPARSE_GATES
        self.gate_state = nn.Linear(config.hidden, gates)
        self.gate_idle = nn.Parameter(torch.zeros(GAP_BUCKETS, gates))
        self.mixture = Mixture(config, types)
        self.new_vector = nn.Parameter(torch.zeros(config.dim))
        self.new_bias = nn.Parameter(torch.zeros(()))
        nn.init.zeros_(self.gate_state.weight)
        nn.init.zeros_(self.gate_state.bias)
        with torch.no_grad():
            self.gate_state.bias[:2] = math.log(math.e - 1)  # softplus = 1: hidden state and bias count fully
            self.gate_state.bias[2 + lives : 2 + self.columns] = 1.0
            self.gate_state.bias[-SPARSE_GATES:-2] = -3.0  # the sparse masses start small

    @property
    def state_size(self) -> int:
        return self.cell.state_size

    def initial(self, users: int) -> Tensor:
        """The state of users without events: zeros[users, S]."""
        return torch.zeros(users, self.state_size, device=self.item_bias.device)

    def inputs(self, inputs: Inputs) -> Tensor:
        """Events -> what the cell reads: [..., D]."""
        if inputs.item.dim() == 1 and self.item_vectors.device.type == "cpu" and not torch.is_grad_enabled():
            gaps = self.gap_vectors if self.config.time_gaps else self.gap_vectors[:0]
            return input_vectors(*inputs, self.item_vectors, self.type_vectors, self.negative_vector, gaps)
        x = self.item_vectors[inputs.item] + self.type_vectors[inputs.type]
        x = x + inputs.negative.unsqueeze(-1) * self.negative_vector
        if self.config.time_gaps:
            x = x + self.gap_vectors[gap_bucket(inputs.gap_ms)]
        return x

    def step(self, inputs: Inputs, state: Tensor) -> Tensor:
        """One event for each of B users: state[B,S] -> state[B,S]."""
        next_state: Tensor = self.cell.step(self.inputs(inputs), state)
        return next_state

    def packed(self, inputs: Inputs, batch_sizes: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Windows of events, packed (see Cell.packed), from state[B,S] -> outputs[n,H], state[B,S]."""
        return self.cell.packed(self.dropout(self.inputs(inputs)), batch_sizes, state)

    def sequence(self, inputs: Inputs, state: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Windows [B,T] of events from state[B,S] -> outputs[B,T,H], state[B,S] (see Cell.sequence)."""
        return self.cell.sequence(self.inputs(inputs), state, lengths)

    def of_features(self, bags: Bags) -> Tensor:
        """Vectors and biases that features give to n items: [n, D + 1]; zeros without features that are
        known.
        """
        if not self.config.features:
            return self.item_bias.new_zeros(len(bags.start), self.config.dim + 1)
        columns = embedding_bag(
            bags.feature, self.feature_vectors, bags.start, mode="sum", per_sample_weights=bags.weight
        )
        return columns - bags.has_any[:, None] * self.feature_centre

    def item_columns(self, index: Tensor, of_features: Tensor | None = None) -> Tensor:
        """Item vectors and biases, [n, D + 1], for input indices [n].

        Items outside the vocabulary share one vector, which was learned on items that were new in the
        held-out events. To it `of_features` is added, by which an item differs from those.
        """
        bias = self.item_bias[index.clamp(max=self.items - 1)]
        trained = torch.cat([self.item_vectors[index], bias[:, None]], dim=1)
        new = torch.cat([self.new_vector, self.new_bias[None]])
        if of_features is not None:
            new = new + of_features
        return torch.where((index < self.items)[:, None], trained, new)

    def popularity_columns(self, log_popularity: Tensor) -> Tensor:
        """Log moving popularities [..., F] -> the score's columns [..., F + TREND]: the popularities
        themselves, and learned functions of all of them together, which can tell what rises from what fades.
        """
        if not self.columns:
            return log_popularity
        return torch.cat([log_popularity, self.trend(log_popularity / TREND_UNIT)], dim=-1)

    def user_vector(self, output: Tensor, idle_ms: Tensor) -> Tensor:
        """Cell outputs [n,H] of users idle for [n] ms -> vectors [n,D], to be multiplied by item vectors."""
        output = self.dropout(output)
        if not self.config.time_gaps:
            return self.project(output)  # type: ignore[no-any-return]
        bucket = gap_bucket(idle_ms)
        return self.project(output * torch.exp(self.idle_gates[bucket])) + self.idle_vectors[bucket]  # type: ignore[no-any-return]

    def gates(self, output: Tensor, idle_ms: Tensor) -> Tensor:
        """Raw gates [n, 2 + F + TREND + SPARSE_GATES] of cell outputs [n,H]."""
        raw: Tensor = self.gate_state(output)
        return raw + self.gate_idle[gap_bucket(idle_ms)]

    def query_of_output(self, output: Tensor, idle_ms: Tensor) -> Query:
        """Cell outputs [n,H] -> Query."""
        raw = self.gates(output, idle_ms)
        dense = softplus(raw[:, :2])
        popularity = raw[:, 2:-SPARSE_GATES]
        vector = torch.cat(
            [self.user_vector(output, idle_ms) * dense[:, :1], dense[:, 1:], popularity], dim=1
        )
        return Query(vector, raw[:, -SPARSE_GATES:], idle_ms)

    def query(self, state: Tensor, idle_ms: Tensor) -> Query:
        """States [B,S] of users whose last event was idle_ms[B] ago (-1 = no event yet) -> Query."""
        return self.query_of_output(self.cell.output(state), idle_ms)
