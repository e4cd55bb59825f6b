"""Copying: a mixture of the chord head and of frames that followed the same music before.

Pieces repeat whole sections, frame by frame. The head alone has to choose each note of a repeated
frame again, and its small doubts multiply. So the model also proposes K whole frames:

    p(frame) = w_0 head(frame) + sum over k of w_k [frame = candidate_k]

The candidates are what followed where the music was like now for the longest: the frame after the
longest match of the latest frames with an earlier passage, as in prediction by partial matching
(Cleary and Witten 1984); and, for each further candidate, the longest match that was followed by
another frame. The weights depend on the lengths of the matches and on the model's vector, and sum
to 1, so the mixture is exact and normalised, as that of a pointer network (Merity et al. 2016,
arXiv:1609.07843).

The head and the model learn from every frame as if there were no candidates, and the weights alone
learn from the mixture. Trained jointly, the head would learn little from frames that are copied,
and overfit to the others (docs/log.md). Letters are those of model.py and heads.py, and: K
candidates, L lags.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from pianolstm.layers.heads import (
    MIN_TEMPERATURE,
    MODEL_DISTRIBUTION,
    AutoregressiveHead,
    ChordHead,
    Sampler,
    SamplingParams,
    sample_categorical,
)

WINDOW = 1024  # frames that matches are looked for in
_LONGEST = 32  # frames; longer matches count as this long
_BITS = 62  # pitches in one number of a frame's code
_RARE = -3.0  # the logit of a candidate before training


class CopyCache(NamedTuple):
    """What copying keeps of the frames so far, the newest last."""

    codes: Tensor  # (B, S, C) int64, the frames, S <= WINDOW
    lengths: Tensor  # (B, L) int32, of the latest match at each lag; the last is lag 1

    def first_rows(self, rows: int) -> "CopyCache":
        """Return the cache of the first pieces of the batch."""
        return CopyCache(*(tensor[:rows] for tensor in self))


class Candidates(nn.Module):
    """Proposes K whole frames as the next one, and weighs them.

    Args:
        hidden_size: H.
        count: K.
        pitches: P.
    """

    def __init__(self, hidden_size: int, count: int, pitches: int) -> None:
        """Make the layers; at first the weights depend on nothing."""
        super().__init__()
        self.count, self.pitches = count, pitches
        self.from_vector = nn.Linear(hidden_size, count)
        self.from_lengths = nn.Linear(count * (_LONGEST + 1), count, bias=False)
        nn.init.zeros_(self.from_vector.weight)
        nn.init.constant_(self.from_vector.bias, _RARE)
        nn.init.zeros_(self.from_lengths.weight)

    def forward(
        self, vectors: Tensor, frames: Tensor, cache: CopyCache | None
    ) -> tuple[Tensor, CopyCache]:
        """Propose candidates for the frame after each of these.

        Args:
            vectors: (B, T, H).
            frames: (B, T, P) of 0 and 1.
            cache: what the last call returned; None = the start of a piece.

        Returns:
            The candidates and the logarithms of the weights, that of the head first:
            (B, T, K * P + K + 1); and the cache with these frames added.
        """
        codes = encode(frames)  # (B, T, C)
        if cache is None:
            cache = CopyCache(codes[:, :0], codes.new_zeros(len(codes), 0, dtype=torch.int32))
        before = cache.codes.shape[1]
        known = torch.cat([cache.codes, codes], dim=1)  # (B, S + T, C)
        lags = min(WINDOW, known.shape[1])
        # One number a frame is compared. Two frames share one with a probability of 2^-64, and even
        # then the candidates would be no worse than others.
        hashes = _hash(known)
        padded = functional.pad(hashes, (lags, 0))[:, before:]
        windows = padded.unfold(1, lags, 1)  # (B, T + 1, L), the oldest first
        earlier, following = windows[:, :-1], windows[:, 1:]  # and what followed
        same = earlier == hashes[:, before:, None]  # (B, T, L)
        # Nothing matches before the piece: the L lags of time t reach back to time t - L.
        time = torch.arange(before, known.shape[1], device=frames.device)
        same &= torch.arange(lags, device=frames.device) >= lags - time[:, None]
        lengths = _match_lengths(same, functional.pad(cache.lengths, (lags, 0))[:, -lags:])
        # Of matches as long, the latest one is taken.
        order = torch.arange(1, lags + 1, device=frames.device, dtype=torch.int32)
        scores = (lengths * (lags + 1) + order).where(lengths > 0, 0)
        proposed, found = [], []
        for _ in range(self.count):
            score, index = scores.max(dim=2, keepdim=True)  # (B, T, 1)
            scores = scores.masked_fill(following == following.gather(2, index), 0)
            found.append(score // (lags + 1))
            # Index L - 1 is lag 1, which was followed by the frame itself.
            place = (time[:, None] - lags + 1 + index).clamp(min=0)  # (B, T, 1)
            code = known.gather(1, place.expand(-1, -1, known.shape[2]))
            proposed.append(_decode(code, self.pitches) * (score > 0))
        matched = torch.cat(found, dim=2).long()  # (B, T, K), frames
        log_weights = self._log_weights(vectors, matched)
        columns = torch.cat([*(frame.to(log_weights) for frame in proposed), log_weights], dim=2)
        return columns, CopyCache(known[:, -WINDOW:], lengths[:, -1].clone())

    def _log_weights(self, vectors: Tensor, matched: Tensor) -> Tensor:
        """Return the logarithms of the weights, (B, T, K + 1); 0 is the head's logit."""
        one_hot = functional.one_hot(matched, _LONGEST + 1).flatten(2).to(vectors.dtype)
        logits = self.from_vector(vectors.detach()) + self.from_lengths(one_hot)
        logits = logits.masked_fill(matched == 0, -torch.inf)
        return functional.pad(logits, (1, 0)).log_softmax(dim=2)


class CopyHead(AutoregressiveHead):
    """The mixture of a chord head and of the model's candidates.

    Args:
        head: the chord head.
        count: K. The candidates' columns follow those of the head: (F, H + K * P + K + 1).
        pitches: P.
    """

    def __init__(self, head: ChordHead, count: int, pitches: int) -> None:
        """Wrap the head."""
        super().__init__()
        self.head, self.count, self.pitches = head, count, pitches

    def nll(self, hidden: Tensor, frames: Tensor) -> Tensor:
        """Return -log p(frame) of the mixture in nats, (F,)."""
        hidden, copies, log_weights = self._split(hidden)
        return self._mix(self.head.nll(hidden, frames), copies, log_weights, frames)

    def note_nll(self, hidden: Tensor, frames: Tensor) -> Tensor:
        """Return the NLL of each note given those above it, (F, P + 1); column 0 is of "stop".

        The probability of a frame's first notes is the mixture of the head's and of the weights of
        the candidates that begin with the same notes.
        """
        hidden, copies, log_weights = self._split(hidden)
        # Columns in the order of choices, from the highest pitch to "stop".
        chosen = functional.pad(frames, (1, 0), value=1.0).flip(1) > 0  # (F, P + 1)
        by_head = -self.head.note_nll(hidden, frames).flip(1).cumsum(dim=1)
        differs = (copies != frames[:, None]).flip(2)  # (F, K, P)
        differs = functional.pad(differs, (0, 1)).long().cumsum(dim=2) > 0
        by_copies = log_weights[:, 1:, None].masked_fill(differs, -torch.inf)
        log_joint = torch.cat([(log_weights[:, :1] + by_head)[:, None], by_copies], dim=1)
        log_joint = log_joint.logsumexp(dim=1)  # (F, P + 1), known where a choice was made
        reached = log_joint.where(chosen, torch.inf).cummin(dim=1).values  # it falls with each
        before = functional.pad(reached, (1, 0))[:, :-1].clamp(max=0)
        return (before - log_joint).where(chosen, 0).flip(1)

    def nll_and_divergence(
        self, hidden: Tensor, frames: Tensor, shift: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return NLLs, (2, N), and the divergence of the head's choices, (N,)."""
        hidden, copies, log_weights = self._split(hidden)
        nll, divergence = self.head.nll_and_divergence(hidden, frames, shift)
        return self._mix(nll, copies, log_weights, frames), divergence

    def first_logits(self, hidden: Tensor) -> Tensor:
        """Return logits of the highest note, column 0 of none: (F, ...) -> (F, P + 1)."""
        hidden, copies, log_weights = self._split(hidden)
        by_head = log_weights[:, :1] + self.head.first_logits(hidden).log_softmax(dim=1)
        weights = log_weights[:, 1:].exp()
        by_copies = torch.zeros_like(by_head).scatter_add(1, _highest(copies), weights)
        return torch.logaddexp(by_head, by_copies.log())

    def sampler(self, params: SamplingParams = MODEL_DISTRIBUTION) -> Sampler:
        """Return a function that samples frames.

        `temperature` is also that of the weights, up to 1: bolder notes should not end repeats.
        `top_p` is of the head alone. Greedily, the most probable of the head's frame and the
        candidates is taken. With `allowed` classes, but for `top_p`, frames are sampled as without
        them, given that the highest note is allowed.
        """
        sample_chords = self.head.sampler(params)
        greedy = params.temperature < MIN_TEMPERATURE
        copy_temperature = min(params.temperature, 1.0)

        def sample_mixture(
            hidden: Tensor, uniforms: Tensor, allowed: Tensor | None = None
        ) -> Tensor:
            vectors, copies, log_weights = self._split(hidden)
            fresh = sample_chords(vectors, uniforms, allowed)  # (F, P)
            frames = torch.cat([fresh[:, None], copies.to(fresh.dtype)], dim=1)  # (F, K + 1, P)
            logits = log_weights
            if greedy:  # the most probable of these frames
                rows = hidden.repeat_interleave(frames.shape[1], dim=0)
                logits = -self.nll(rows, frames.flatten(0, 1)).view(log_weights.shape)
                # Without a match there is no candidate: silence is no proposal.
                logits = logits.masked_fill(log_weights.isneginf(), -torch.inf)
            if allowed is not None:
                logits = logits.clone()
                logits[:, 1:].masked_fill_(~allowed.gather(1, _highest(copies)), -torch.inf)
                if not greedy:  # times what the head gives to the notes that are allowed
                    first = self.head.first_logits(vectors) / params.temperature
                    inside = first.log_softmax(dim=1).masked_fill(~allowed, -torch.inf)
                    logits[:, 0] += copy_temperature * inside.logsumexp(dim=1)  # divided below
            # The last number is not used by the chain: a frame of all P notes has no choice left.
            chosen = sample_categorical(logits, uniforms[:, -1:], copy_temperature, 1.0)
            return frames.gather(1, chosen[:, :, None].expand(-1, -1, self.pitches))[:, 0]

        return sample_mixture

    def set_unigram(self, probabilities: Tensor) -> None:
        """Set the head's biases so that pitches have these probabilities, (P,) in (0, 1)."""
        self.head.set_unigram(probabilities)

    def _split(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the head's vectors, the candidates, (..., K, P), and the log-weights."""
        sizes = (self.count * self.pitches, self.count + 1)
        vectors, copies, log_weights = hidden.split((hidden.shape[-1] - sum(sizes), *sizes), dim=-1)
        return vectors, copies.unflatten(-1, (self.count, self.pitches)), log_weights

    def _mix(self, nll: Tensor, copies: Tensor, log_weights: Tensor, frames: Tensor) -> Tensor:
        """Return the mixture's NLL, (...), from that of the head, with the head's own gradient."""
        copied = (copies == frames[..., None, :]).all(dim=-1)  # (..., K)
        by_copies = log_weights[..., 1:].masked_fill(~copied, -torch.inf)
        by_head = log_weights[..., :1] - nll.detach()[..., None]
        mixed = -torch.cat([by_head, by_copies], dim=-1).logsumexp(dim=-1)
        return mixed + (nll - nll.detach())


def encode(frames: Tensor) -> Tensor:
    """Return a code of each frame, which no other frame has: (B, T, P) -> (B, T, C) int64."""
    padded = functional.pad(frames.long(), (0, -frames.shape[2] % _BITS))
    place = torch.arange(_BITS, device=frames.device)
    return (padded.unflatten(2, (-1, _BITS)) << place).sum(dim=3)


def _hash(codes: Tensor) -> Tensor:
    """Return one number for each frame's code, (..., C) -> (...) int64, by odd multipliers."""
    numbers = torch.arange(codes.shape[-1], device=codes.device)
    return (codes * (0x5851F42D4C957F2D + 2 * numbers * 0x14057B7EF767814F)).sum(dim=-1)


def _decode(codes: Tensor, pitches: int) -> Tensor:
    """Return the frames, (B, T, P) int64, of their codes, (B, T, C)."""
    place = torch.arange(_BITS, device=codes.device)
    return (codes[..., None] >> place & 1).flatten(2)[:, :, :pitches]


def _match_lengths(same: Tensor, before: Tensor) -> Tensor:
    """Return how many frames have been the same without a break, at each lag.

    Args:
        same: (B, T, L) bool, whether a frame equals the one so far before it.
        before: (B, L) int32, the lengths at the frame before these.

    Returns:
        (B, T, L) int32, at most `_LONGEST`.
    """
    time = torch.arange(same.shape[1], device=same.device, dtype=torch.int32)[:, None]
    broken = time.where(~same, -1).cummax(dim=1).values  # (B, T, L), the latest break
    unbroken = time + 1 + before[:, None]
    return (time - broken).where(broken >= 0, unbroken).clamp(max=_LONGEST)


def _highest(frames: Tensor) -> Tensor:
    """Return the class of the highest note of each frame, 0 for none: (..., P) -> (...) int64."""
    classes = torch.arange(1, frames.shape[-1] + 1, device=frames.device)
    return (frames * classes).amax(dim=-1).long()
