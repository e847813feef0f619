"""A transformer over the codes of an image that predicts the next code, or the hidden ones.

    tokens   the grid's positions in rows from the top: the P codes of each are one token, or each code is one
    causal   token t of an order sees the codes of tokens 0 .. t-1:  x_t = E(c_{t-1}) + known_{t-1} + asked_t
    masked   every token sees all codes that are not hidden:         x_t = (E(c_t) or `hidden`) + known_t
    block    x + attention([context, RMSNorm x]),  x + SwiGLU(RMSNorm x)
    logits   <Linear(RMSNorm x), E(c)> + b_c; where a token is P codes, a small causal transformer goes through them

E(c) are a few numbers for each code of each plane, mapped to the width; `known` and `asked` are learned embeddings of
the position, each the sum of a row's, a column's and a plane's. Because `asked` is that of the predicted token, the
order may be any (Yu et al. 2024, arXiv:2411.00776, section 3.2). The context, conditioning.py, is nothing, a class or
the bytes of a text.
Sources: Vaswani et al. 2017, arXiv:1706.03762; Esser et al. 2021, arXiv:2012.09841; Chang et al. 2022,
arXiv:2202.04200, for `masked`; Lee et al. 2022, arXiv:2203.01941, for the depth transformer; Shazeer 2020,
arXiv:2002.05202, for SwiGLU.  Layout: codes (B, P, H, W); tokens (B, L, I), I codes each, L * I = P * H * W.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smalti.config.prior import PriorConfig
from smalti.errors import ConfigError
from smalti.models.prior.block import Block, Cache, Context
from smalti.models.prior.conditioning import WEIGHT_STD, context_encoder
from smalti.nn.norm import RMSNorm
from smalti.runtime.rng import Draws

LONGEST_SEQUENCE = 256  # tokens, up to which "auto" gives each code a token of its own
LONGEST = 4096  # tokens of an image: attention grows with their square
TABLE_STD, ALIKE = 0.1, 0.7  # of the table's variance, the share that comes from the values of codes


class PriorTransformer(nn.Module):
    """Logits of codes.

    Args:
        codebook_sizes: number of codes in each plane.
        grid: (height, width) in codes.
        classes: number of labels, for condition "class".

    Attributes:
        length: L, tokens of an image.
        inner: I, codes of a token.
        causal: whether a token sees only those before it.
    """

    def __init__(
        self, config: PriorConfig, codebook_sizes: tuple[int, ...], grid: tuple[int, int], classes: int = 0
    ) -> None:
        super().__init__()
        self.config, self.codebook_sizes, self.grid, self.classes = config, codebook_sizes, grid, classes
        planes, positions, width = len(codebook_sizes), grid[0] * grid[1], config.width
        each = config.planes == "sequence" or (config.planes == "auto" and planes * positions <= LONGEST_SEQUENCE)
        self.inner = 1 if each else planes
        self.length = positions * planes // self.inner
        if self.length > LONGEST:
            raise ConfigError(
                f"an image has {grid[0]}x{grid[1]} places of codes, {self.length:,} tokens, but a prior takes at most "
                f"{LONGEST:,}; encode smaller images, or use a tokenizer with a larger stride"
            )
        self.causal = config.order != "masked"
        largest = max(codebook_sizes)
        self.table = nn.Parameter(TABLE_STD * torch.randn(planes, largest, config.embedding))
        self.bias = nn.Parameter(torch.zeros(planes, largest))
        self.in_proj = nn.Linear(config.embedding, width, bias=False)
        self.position, self.target_position = (
            _Positions(grid, planes // self.inner, width),
            _Positions(grid, planes // self.inner, width),
        )
        self.mask_token = nn.Parameter(WEIGHT_STD * torch.randn(width))  # before any code, or instead of a hidden one
        self.context = context_encoder(config, classes)
        self.blocks = nn.ModuleList(Block(width, config.heads, config.dropout) for _ in range(config.depth))
        self.norm = RMSNorm(width)
        self.head = _DepthHead(config, planes) if self.inner > 1 else None
        self.out_proj = nn.Linear(config.head_width if self.inner > 1 else width, config.embedding, bias=False)
        _initialise(self, config.depth)

    @torch.no_grad()
    def init_from_codebook(self, values: list[Tensor], generator: torch.Generator) -> None:
        """Initialise the table from the (K, D) values of each plane's codes, so that similar codes have similar rows.

        The rows are a random projection of the values, plus noise, so that codes of equal value can diverge.
        """
        for row, vectors in zip(self.table, values, strict=True):
            spread = vectors - vectors.mean(dim=0)
            spread = spread / spread.square().mean().sqrt().clamp(min=torch.finfo(spread.dtype).tiny)
            projection = torch.randn(spread.shape[1], row.shape[1], generator=generator) / spread.shape[1] ** 0.5
            projected = TABLE_STD * ALIKE**0.5 * spread @ projection
            row[: len(spread)].mul_((1 - ALIKE) ** 0.5).add_(projected.to(row.device))

    def tokens(self, codes: Tensor) -> Tensor:
        """(B, P, H, W) codes -> (B, L, I)."""
        return codes.flatten(2).transpose(1, 2).reshape(codes.shape[0], self.length, self.inner)

    def codes(self, tokens: Tensor) -> Tensor:
        """The inverse of `tokens`."""
        planes = len(self.codebook_sizes)
        return tokens.reshape(tokens.shape[0], -1, planes).transpose(1, 2).unflatten(2, self.grid).contiguous()

    def embed(self, tokens: Tensor, at: int | None = None) -> Tensor:
        """(B, t, I) -> (B, t, width), of all tokens or of the one with that number."""
        vectors: Tensor = self.in_proj(self.table[self._planes(at), tokens].sum(dim=2))
        return vectors

    def _planes(self, at: int | None = None) -> Tensor:
        """(L, I), of each code the number of its plane; or (1, I), of one token."""
        each = torch.arange(len(self.codebook_sizes), device=self.table.device).view(-1, self.inner)
        return each.repeat(self.length // len(each), 1) if at is None else each[at % len(each)][None]

    def causal_logits(
        self, tokens: Tensor, context: Context | None, *, order: Tensor | None = None, draws: Draws | None = None
    ) -> Tensor:
        """The logits of each token, given those before it in an order.

        Args:
            tokens: (B, L, I).
            order: (B, L) int64, the number of the token that comes t-th; None: as they are.
            draws: noise for dropout, in training.

        Returns:
            (B, L, I, K) float32, K the largest alphabet; token by token as in `tokens`, whatever the order.
        """
        x, known, asked = self.embed(tokens), self.position(), self.target_position()
        if order is not None:
            x, known, asked = _take(x, order), known[order], asked[order]
        before = (x + known)[:, :-1]
        start = self.mask_token.to(before.dtype).expand(x.shape[0], 1, -1)
        x = torch.cat([start, before], dim=1) + asked
        x = self._through(x, context, _causal(self.length, x.device), draws)
        if order is not None:
            x = _take(x, order.argsort(dim=1))
        return self._logits(x, tokens, draws)

    def masked_logits(
        self, tokens: Tensor, hidden: Tensor, context: Context | None, *, draws: Draws | None = None
    ) -> Tensor:
        """The logits of each token, given those that are not hidden: (B, L, I) and (B, L) bool -> (B, L, I, K)."""
        return self._logits(self.masked_features(tokens, hidden, context, draws=draws), tokens, draws)

    def masked_features(
        self, tokens: Tensor, hidden: Tensor, context: Context | None, *, draws: Draws | None = None
    ) -> Tensor:
        """The last block's output for `masked_logits`: (B, L, width)."""
        x = self.embed(tokens)
        x = torch.where(hidden[:, :, None], self.mask_token.to(x.dtype), x) + self.position()
        return self._through(x, context, None, draws)

    def caches(self, count: int, context: Context | None) -> list[Cache]:
        """The caches that `step` uses, for `count` images."""
        room = self.length + (0 if context is None else context.there.shape[1])
        return [Cache(count, room) for _ in self.blocks]

    def step(self, before: Tensor | None, at: int, context: Context | None, caches: list[Cache]) -> Tensor:
        """The features that token `at` is predicted from, in rows.

        Args:
            before: (B, 1, I) token at - 1; None for the first one.
            caches: one for each block, which hold the tokens before that.

        Returns:
            (B, 1, width).
        """
        if before is None:
            x = self.mask_token.expand(caches[0].count, 1, -1) + self.target_position()[at]
        else:
            x = self.embed(before, at - 1) + self.position()[at - 1] + self.target_position()[at]
        for block, cache in zip(self.blocks, caches, strict=True):
            x = block(x, context, None, None, cache)
        return self.norm(x)

    def next_logits(self, features: Tensor, given: Tensor, at: int | None = None) -> Tensor:
        """The logits of the next code of one token, or of all.

        Args:
            features: (B, t, width), of the token, or of all L.
            given: (B, t, i), the first i of its codes.
            at: number of the token; None: all.

        Returns:
            (B, t, K) float32 logits of code i.
        """
        plane = self._planes(at)
        number = given.shape[2]
        if self.head is None:
            vectors = self.out_proj(features)
        else:
            vectors = self.out_proj(self.head(features, self.table[plane[:, :number], given], None)[:, :, number])
        different = 1 if self.inner > 1 or at is not None else len(self.codebook_sizes)
        return self._score(vectors, plane[:different, number])

    def _through(self, x: Tensor, context: Context | None, mask: Tensor | None, draws: Draws | None) -> Tensor:
        for block in self.blocks:
            x = block(x, context, mask, draws)
        return self.norm(x)

    def _logits(self, features: Tensor, tokens: Tensor, draws: Draws | None) -> Tensor:
        if self.head is None:
            vectors = self.out_proj(features)
        else:
            vectors = self.out_proj(self.head(features, self.table[self._planes(), tokens][:, :, :-1], draws))
        return self._score(vectors, torch.arange(len(self.codebook_sizes), device=vectors.device)).view(
            *tokens.shape, -1
        )

    def _score(self, vectors: Tensor, planes: Tensor) -> Tensor:
        """(B, t, ..., e) vectors, of these p planes in turn -> (B, t, K) float32 logits, or t * I of them."""
        rows = vectors.reshape(-1, len(planes), vectors.shape[-1]).transpose(0, 1)
        logits = torch.bmm(rows, self.table[planes].transpose(1, 2).to(rows.dtype)).float()
        logits = logits + self.bias[planes][:, None]
        if min(self.codebook_sizes) < logits.shape[2]:  # codes that a plane lacks
            sizes = torch.tensor(self.codebook_sizes, device=planes.device)[planes]
            outside = torch.arange(logits.shape[2], device=planes.device) >= sizes[:, None]
            logits = logits.masked_fill(outside[:, None], -math.inf)
        return logits.transpose(0, 1).reshape(vectors.shape[0], -1, logits.shape[2])


class _Positions(nn.Module):
    """A vector for each token: the sum of its row's, its column's and, if it is one code, its plane's."""

    def __init__(self, grid: tuple[int, int], planes: int, width: int) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.empty(grid[0], 1, 1, width))
        self.columns = nn.Parameter(torch.empty(1, grid[1], 1, width))
        self.planes = nn.Parameter(torch.empty(1, 1, planes, width))

    def forward(self) -> Tensor:
        """(L, width)."""
        return (self.rows + self.columns + self.planes).flatten(0, 2)


class _DepthHead(nn.Module):
    """The codes of one token one after the other: (B, L, width) and i of them known -> (B, L, i + 1, head width)."""

    def __init__(self, config: PriorConfig, planes: int) -> None:
        super().__init__()
        width = config.head_width
        self.gather = nn.Linear(config.width, width, bias=False)
        self.in_proj = nn.Linear(config.embedding, width, bias=False)
        self.planes = nn.Parameter(torch.empty(planes, width))
        heads = next(count for count in range(max(1, width // 64), 0, -1) if width % count == 0)
        self.blocks = nn.ModuleList(Block(width, heads, config.dropout) for _ in range(config.head_depth))
        self.norm = RMSNorm(width)

    def forward(self, features: Tensor, given: Tensor, draws: Draws | None) -> Tensor:
        """`given`: (B, L, i, e), embeddings of the first i codes."""
        count = given.shape[2] + 1
        x = self.gather(features)[:, :, None] + self.planes[:count]
        x = x + F.pad(self.in_proj(given), (0, 0, 1, 0))
        batch, length = x.shape[:2]
        x = x.flatten(0, 1)
        for block in self.blocks:
            x = block(x, None, _causal(count, x.device), draws)
        return self.norm(x).unflatten(0, (batch, length))


def _causal(length: int, device: torch.device) -> Tensor:
    """(1, 1, T, T): each sees itself and those before it."""
    return torch.ones(1, 1, length, length, dtype=torch.bool, device=device).tril()


def _take(x: Tensor, order: Tensor) -> Tensor:
    """Rows of (B, L, W) in the order (B, L)."""
    return x.gather(1, order[:, :, None].expand(-1, -1, x.shape[2]))


def _initialise(module: nn.Module, depth: int) -> None:
    """N(0, 0.02^2), at the end of residual branches smaller with the depth (GPT-2)."""
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Linear):
            last = name.endswith(("merge", "narrow"))
            nn.init.normal_(layer.weight, 0.0, WEIGHT_STD / (math.sqrt(2 * depth) if last else 1.0))
        elif isinstance(layer, nn.Embedding):
            nn.init.normal_(layer.weight, 0.0, WEIGHT_STD)
        elif isinstance(layer, _Positions):
            for embedding in layer.parameters():
                nn.init.normal_(embedding, 0.0, WEIGHT_STD)
        elif isinstance(layer, _DepthHead):
            nn.init.normal_(layer.planes, 0.0, WEIGHT_STD)
