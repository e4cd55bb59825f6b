"""The model once more in plain NumPy: float64, one piece and one frame at a time.

There are no batches, chunks, caches or fused products here, and every formula stands where it is
used, so this is the plainest description of the model; the tests hold model.py to it. After four
small helpers it reads from top to bottom: the whole model, then its layers in the order in which a
frame passes them, then the two output heads. Dropout is off, as in evaluation. Letters are those of
model.py. Weights are a dict of arrays, by their names in a weights file.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

Array = np.ndarray
Weights = dict[str, Array]
LSTMState = list[tuple[Array, Array]]  # hidden and cell of each layer, (H,) each

OCTAVE = 12  # semitones
VOICES = 8  # with voice-leading biases of their own
COPY_WINDOW, LONGEST_MATCH = 1024, 32  # frames
WAVE_PERIODS = (2, 4, 8, 16, 32, 64, 128, 3, 6, 12, 24, 48, 96)  # frames
HISTOGRAM_PERIODS = (9, 12, 16)  # frames


def weights_of(module: Any) -> Weights:
    """Return the weights of a PyTorch module as float64 arrays by name."""
    return {name: tensor.double().numpy() for name, tensor in module.state_dict().items()}


def part(weights: Weights, name: str) -> Weights:
    """Return the weights of one layer, by their names within it."""
    return {
        key.removeprefix(f"{name}."): array
        for key, array in weights.items()
        if key.startswith(f"{name}.")
    }


def linear(weights: Weights, name: str, x: Array) -> Array:
    """Return W x + b, or W x for a layer without b."""
    return weights[f"{name}.weight"] @ x + weights.get(f"{name}.bias", 0.0)


def sigmoid(x: Array) -> Array:
    """Return 1 / (1 + exp(-x))."""
    return 1 / (1 + np.exp(-x))


# ---- the model -----------------------------------------------------------------------------------


def nlls(weights: Weights, roll: Array, shift: int = 0) -> Array:
    """Return -ln p(x_t | x_1..x_{t-1}) for each frame x_t of a piece, (T,) in nats.

    Args:
        weights: of the model.
        roll: (T, P) of 0 and 1.
        shift: semitones by which the piece was transposed.
    """
    silence = np.zeros_like(roll[:1], dtype=float)  # x_0, from which x_1 is predicted
    vectors = predict(weights, np.concatenate([silence, roll[:-1]]), shift)
    head = part(weights, "head")
    return np.array([nll(head, v, x) for v, x in zip(vectors, roll, strict=True)])


def predict(weights: Weights, frames: Array, shift: int = 0) -> Array:
    """Return the vector v_t from which the head predicts the frame after x_t, (T, H) or longer.

    PianoLSTM, whose vectors are its LSTM's outputs:

        e_t = embedding(x_t)
        v_t = lstm(e_t, state)

    AttentivePianoLSTM adds to it, where it has such weights:

        e_t += transposition of this piece + intervals of x_t from the outer pitches before
               + metrical position
        v_t += attention over x_0..x_t
        v_t += upper_lstm([v_t, e_t], state)
        v_t  = [v_t, logits indexed by interval from the notes of x_t, x_t for voice leading,
                candidates for x_{t+1}, logarithms of their weights]

    Args:
        weights: of the model.
        frames: (T, P) of 0 and 1, from the start of a piece.
        shift: semitones by which the piece was transposed.
    """
    lower, upper = zero_state(weights, "lstm"), zero_state(weights, "upper_lstm")
    outputs: list[Array] = []  # of the lower LSTM, (H,) each
    vectors = []
    for t in range(len(frames)):
        past = frames[: t + 1]
        embedded = embed(weights, past, shift)
        output, lower = lstm(part(weights, "lstm"), embedded, lower)
        outputs.append(output)
        vector = output
        if attention := part(weights, "attention"):
            vector = vector + attend(attention, outputs, past)
        if upper_lstm := part(weights, "upper_lstm"):
            output, upper = lstm(upper_lstm, np.concatenate([vector, embedded]), upper)
            vector = vector + output
        columns = [vector]
        if relative := part(weights, "relative_pitch"):
            columns.append(pitch_logits(relative, vector, past))
        if any(name.endswith("voice_leading.voice_bias") for name in weights):
            columns.append(frames[t])
        if candidates := part(weights, "candidates"):
            columns += propose(candidates, vector, past)
        vectors.append(np.concatenate(columns))
    return np.array(vectors)


# ---- layers --------------------------------------------------------------------------------------


def embed(weights: Weights, past: Array, shift: int) -> Array:
    """Return the input of the LSTM, e = W x + b, and what an attentive model adds, (E,).

    That is a column of weights for the transposition, of which octaves are alike, an embedding of
    the frame's intervals from the highest and the lowest pitch before it, and one of the metrical
    position.

    Args:
        weights: of the model.
        past: (t + 1, P), the frames up to now.
        shift: semitones by which the piece was transposed.
    """
    frame = past[-1]
    embedded = linear(weights, "embedding", frame)
    if "transposition.weight" in weights:
        embedded = embedded + weights["transposition.weight"][:, shift % OCTAVE]
    if relative := part(weights, "relative_pitch"):
        highest, lowest = outer_pitches(past[:-1])
        intervals = np.concatenate([relative_to(highest, frame), relative_to(lowest, frame)])
        embedded = embedded + linear(relative, "input_proj", intervals)
    if "metrical_position.proj.weight" in weights:
        embedded = embedded + weights["metrical_position.proj.weight"] @ metrical_position(past)
    return embedded


def metrical_position(past: Array) -> Array:
    """Return where in its bars the frame after x_t is, (63,).

    These are sin(2 pi (t + 1) / period) of each period of waves, the cosines, and, for each period
    of histograms and each place in it, how often the bass changed there: ln((n + 1/2) / (m + 1/2)),
    n = the changes so far at the times that are a multiple of the period before the next frame,
    before the frame after it, and so on; m = all changes so far divided by the period.

    Args:
        past: (t + 1, P), the frames up to now.
    """
    bass = [outer_pitches(past[:s])[1] for s in range(len(past) + 1)]  # before frame s
    changes = [s for s in range(len(past)) if bass[s + 1] != bass[s]]
    angles = 2 * np.pi * len(past) / np.array(WAVE_PERIODS)
    logs = []
    for period in HISTOGRAM_PERIODS:
        for place in range(period):
            there = sum((len(past) + place - s) % period == 0 for s in changes)
            logs.append(math.log((there + 0.5) / (len(changes) / period + 0.5)))
    return np.array([*np.sin(angles), *np.cos(angles), *logs])


def zero_state(weights: Weights, name: str) -> LSTMState:
    """Return the state of this LSTM before the first frame; an empty one if there is no such."""
    layers = [array for key, array in weights.items() if key.startswith(f"{name}.weight_hh")]
    return [(np.zeros(array.shape[1]), np.zeros(array.shape[1])) for array in layers]


def lstm(weights: Weights, x: Array, state: LSTMState) -> tuple[Array, LSTMState]:
    """Return the output for one input and the next state (Hochreiter and Schmidhuber 1997).

    In each layer, with gates i, f, o and candidate g from W_ih x + b_ih + W_hh h + b_hh:

        c = sigmoid(f) c + sigmoid(i) tanh(g)
        h = sigmoid(o) tanh(c)
    """
    after = []
    for layer, (h, c) in enumerate(state):
        gates = weights[f"weight_ih_l{layer}"] @ x + weights[f"bias_ih_l{layer}"]
        gates = gates + weights[f"weight_hh_l{layer}"] @ h + weights[f"bias_hh_l{layer}"]
        i, f, g, o = np.split(gates, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        x = h = sigmoid(o) * np.tanh(c)
        after.append((h, c))
    return x, after


def outer_pitches(past: Array) -> tuple[int, int]:
    """Return the highest and lowest pitch of the latest frame with a note; (0, 0) before any."""
    for frame in past[::-1]:
        if frame.any():
            pitches = np.flatnonzero(frame)
            return int(pitches[-1]), int(pitches[0])
    return 0, 0


def relative_to(anchor: int, frame: Array) -> Array:
    """Return the frame with pitch p at column p - anchor, cyclically."""
    return np.roll(frame, -anchor)


def attend(weights: Weights, outputs: Sequence[Array], past: Array) -> Array:
    """Return attention's contribution to the vector of the last frame x_t, (H,).

    For each head, over the earlier frames x_s with t - s <= window:

        logit_s = query_t . key_s / sqrt(D) + lag_bias[t - s]
        average = sum over s of softmax(logit)_s x_{s+1}

    The softmax has one more class, with logit 0 and an empty frame. Each viewpoint has heads of its
    own and an anchor a for each frame: 0, the highest, or the lowest pitch. Queries and keys read
    frames relative to the anchor of their own time, and x_{s+1} is moved by a_t - a_s. The averages
    of all heads together are projected to (H,).

    Args:
        weights: of the attention.
        outputs: t + 1 outputs of the LSTM, (H,) each.
        past: (t + 1, P), the frames up to now.
    """
    window, now = weights["lag_bias"].shape[1], len(past) - 1
    viewpoints, heads = viewpoints_and_heads(weights)
    averages = []
    for view in range(viewpoints):
        anchors = [(0, *outer_pitches(past[: t + 1]))[view] for t in range(now + 1)]
        for head in range(heads):
            bias = weights["lag_bias"][view * heads + head]
            query = project(weights, "query_proj", view, head, now, outputs, past, anchors)
            odds, frames = [1.0], [np.zeros_like(past[0])]  # exp(0) and the empty frame
            for s in range(max(now - window, 0), now):
                key = project(weights, "key_proj", view, head, s, outputs, past, anchors)
                odds.append(math.exp(query @ key / math.sqrt(len(key)) + bias[now - s - 1]))
                frames.append(np.roll(past[s + 1], anchors[now] - anchors[s]))
            averages.append(np.array(odds) / sum(odds) @ np.array(frames))
    return linear(weights, "out_proj", np.concatenate(averages))


def project(
    weights: Weights,
    name: str,
    view: int,
    head: int,
    t: int,
    outputs: Sequence[Array],
    past: Array,
    anchors: Sequence[int],
) -> Array:
    """Return the query or key of a head at time t, (D,).

    It is a projection of the LSTM's output plus one of the frames x_{t-n+1}..x_t, n =
    `query_frames`, all of them relative to the anchor of time t. Before the piece is silence.

    Args:
        weights: of the attention.
        name: "query_proj" or "key_proj".
        view: the viewpoint, from 0.
        head: the head within the viewpoint.
        t: the time, from 0.
        outputs: of the LSTM, up to t or longer.
        past: frames, up to t or longer.
        anchors: of each frame in this viewpoint.
    """
    frame_proj = weights[f"frame_proj.{view}.weight"]  # (A * D, n * P)
    count = frame_proj.shape[1] // past.shape[1]
    window = np.zeros((count, past.shape[1]))  # the newest frame last
    known = past[max(t + 1 - count, 0) : t + 1]
    window[count - len(known) :] = [relative_to(anchors[t], frame) for frame in known]
    viewpoints, heads = viewpoints_and_heads(weights)
    of_view = np.split(linear(weights, name, outputs[t]), viewpoints)[view]  # (A * D,)
    return np.split(of_view + frame_proj @ window.ravel(), heads)[head]


def viewpoints_and_heads(weights: Weights) -> tuple[int, int]:
    """Return V, the viewpoints of an attention, and A, the heads of each."""
    viewpoints = sum(name.startswith("frame_proj") for name in weights)
    return viewpoints, len(weights["lag_bias"]) // viewpoints


def pitch_logits(weights: Weights, vector: Array, past: Array) -> Array:
    """Return the logit that relative pitch gives to each pitch p of the next frame, (P,).

        logit_p = from_highest[p - highest] + from_lowest[p - lowest]
                  + sum over notes n of x_t, |n - p| <= 12, of near[n - p]

    The first two are cyclic in P. All three are linear in the vector.

    Args:
        weights: of the relative pitch.
        vector: (H,).
        past: (t + 1, P), the frames up to now.
    """
    frame, pitches = past[-1], past.shape[1]
    from_highest, from_lowest = np.split(linear(weights, "outer_proj", vector), 2)
    near = linear(weights, "near_proj", vector)
    highest, lowest = outer_pitches(past)
    logits = np.zeros(pitches)
    for p in range(pitches):
        logits[p] = from_highest[(p - highest) % pitches] + from_lowest[(p - lowest) % pitches]
        for note in np.flatnonzero(frame):
            if abs(note - p) <= OCTAVE:
                logits[p] += near[note - p + OCTAVE]
    return logits


def propose(weights: Weights, vector: Array, past: Array) -> tuple[Array, Array]:
    """Return candidates for the frame after x_t, (K * P,), and log-weights, (K + 1,).

    A match is an earlier x_s that equals x_t; its length is the number of frames up to x_s that
    equal those up to x_t, at most 32. The first candidate is x_{s+1} after the longest match, the
    latest of those as long; each further one likewise, of the matches that were followed by none of
    the candidates before it. One that does not exist is silence of weight 0. The weights are a
    softmax of 0, for the head, and of

        logit_k = from_vector_k(vector) + sum over candidates j of from_lengths_k[j, length_j]

    Args:
        weights: of the candidates.
        vector: (H,).
        past: (t + 1, P), the frames up to now.
    """
    now, pitches = len(past) - 1, past.shape[1]
    matches = []  # length and s of each
    for s in range(max(now - COPY_WINDOW, 0), now):
        length = 0
        while length <= s and (past[s - length] == past[now - length]).all():
            length += 1
        if length:
            matches.append((min(length, LONGEST_MATCH), s))
    logits = linear(weights, "from_vector", vector)
    from_lengths = weights["from_lengths.weight"].reshape(len(logits), len(logits), -1)
    frames, exists = [], []
    for k in range(len(logits)):
        length, s = max(matches, default=(0, -1))
        frames.append(past[s + 1] if length else np.zeros(pitches))
        exists.append(length > 0)
        matches = [match for match in matches if (past[match[1] + 1] != frames[k]).any()]
        logits = logits + from_lengths[:, k, length]
    logits = np.array([0.0, *np.where(exists, logits, -np.inf)])
    return np.concatenate(frames), logits - np.logaddexp.reduce(logits)


# ---- output heads --------------------------------------------------------------------------------

# A frame is a sequence of choices, each a softmax over a few classes: its probability is the
# product of theirs.
Choice = tuple[Array, int]  # logits of the classes, and the class chosen


def nll(head: Weights, vector: Array, frame: Array) -> float:
    """Return -ln p(frame | vector) in nats: the sum over choices of ln sum exp(logits) - logit.

    That of a mixture with candidates is -ln (w_0 p(frame | vector) + sum over k of w_k, of the
    candidates that equal the frame).
    """
    if inner := part(head, "head"):
        vector, candidates, log_weights = split_mixture(inner, vector)
        logs = [log_weights[0] - nll(inner, vector, frame)]
        logs += log_weights[1:][(candidates == frame).all(axis=1)].tolist()
        return -float(np.logaddexp.reduce(logs))
    return sum(
        math.log(np.exp(logits - logits.max()).sum()) + logits.max() - logits[chosen]
        for logits, chosen in choices(head, vector, frame)
    )


def split_mixture(head: Weights, vector: Array) -> tuple[Array, Array, Array]:
    """Return the chord head's own vector, the candidates, (K, P), and the log-weights, (K + 1,)."""
    classes, size = head["base.weight"].shape  # P + 1, H
    if part(head, "voice_leading"):
        size += classes - 1
    count = (len(vector) - size) // classes
    own, candidates, log_weights = np.split(vector, [size, len(vector) - count - 1])
    return own, candidates.reshape(count, classes - 1), log_weights


def probability(
    head: Weights, vector: Array, frame: Array, adjust: Callable[[Array, int], Array]
) -> float:
    """Return the probability that a frame is sampled when each choice is adjusted.

    Args:
        head: weights of the head.
        vector: (H,).
        frame: (P,) of 0 and 1.
        adjust: maps the logits of a choice and its number in the frame, from 0, to odds.
    """
    product = 1.0
    for number, (logits, chosen) in enumerate(choices(head, vector, frame)):
        odds = adjust(logits, number)
        product *= odds[chosen] / odds.sum()
    return product


def choices(head: Weights, vector: Array, frame: Array) -> Iterator[Choice]:
    """Yield the choices that make up a frame.

    Independent Bernoulli outputs: silent or sounding, for each pitch from the lowest up. The logits
    are 0 and the pitch's own, so the second class has probability sigmoid(logit).

    The chord head: classes 0 = stop and p + 1 = pitch p. The first choice is the highest note; each
    further one is the next note downwards, among the lower pitches and stop, until stop.
    """
    if "logits.weight" in head:
        for logit, sounds in zip(linear(head, "logits", vector), frame, strict=True):
            yield np.array([0.0, logit]), int(sounds)
        return
    notes = np.flatnonzero(frame)[::-1].tolist()
    for count in range(len(notes) + 1):
        yield chord_logits(head, vector, notes[:count]), [*notes, -1][count] + 1


def chord_logits(head: Weights, vector: Array, notes: Sequence[int]) -> Array:
    """Return the chord head's logits of the next choice, over stop and the pitches that can follow.

    Without notes they are base(vector), for stop and all pitches. After notes, of which n is the
    lowest and the last, they are for stop and the pitches below n:

        units      = chosen_proj [notes, notes - n] * (1 + context(vector))
        logit_stop = base_stop + unit_proj_stop(units)
        logit_p    = base_p + unit_proj_p(units)
                     + below[p - n] + unit_proj_below[p - n](units)

    Notes are given as P zeros and ones twice, as pitches and as intervals from n. Intervals are
    cyclic in P. With voice leading, the vector ends with the frame before, and `lead` is added.

    Args:
        head: weights of the head.
        vector: (H,) or (H + P,).
        notes: the pitches chosen so far, descending.
    """
    if voices := part(head, "voice_leading"):
        size = head["base.weight"].shape[1]
        plain = {name: array for name, array in head.items() if "voice_leading" not in name}
        logits = chord_logits(plain, vector[:size], notes)
        return logits + lead(voices, vector[:size], vector[size:], notes)[: len(logits)]
    base = linear(head, "base", vector)  # (P + 1,)
    if not notes:
        return base
    pitches, last = len(base) - 1, notes[-1]
    chosen = np.zeros(pitches)
    chosen[list(notes)] = 1
    both = np.concatenate([chosen, relative_to(last, chosen)])
    units = linear(head, "chosen_proj", both) * (1 + linear(head, "context", vector))
    by_class, by_interval = np.split(linear(head, "unit_proj", units), [pitches + 1])
    by_interval = by_interval + linear(head, "below", vector)
    logits = base + by_class
    for p in range(last):
        logits[p + 1] += by_interval[(p - last) % pitches]
    return logits[: last + 1]


def lead(weights: Weights, vector: Array, before: Array, notes: Sequence[int]) -> Array:
    """Return what voice leading adds to the logits of stop and all pitches, (P + 1,).

    After k notes there are two anchors among the notes of the frame before: its note number k from
    the highest, and its highest note below the last one chosen. Both give logits to the pitches up
    to an octave away, by interval, and one to stop, which differs where there is no such note.

    Args:
        weights: of the voice leading.
        vector: (H,).
        before: (P,), the frame before.
        notes: the pitches chosen so far, descending.
    """
    voices, number = np.flatnonzero(before)[::-1].tolist(), min(len(notes), VOICES - 1)
    below = [voice for voice in voices if not notes or voice < notes[-1]]
    logits = np.zeros(len(before) + 1)
    tables = np.split(linear(weights, "proj", vector) + weights["voice_bias"][number], 2)
    for table, anchor in zip(tables, (voices[number : number + 1], below[:1]), strict=True):
        *by_interval, without, with_anchor = table
        logits[0] += with_anchor if anchor else without
        for p in range(len(before)):
            if anchor and abs(p - anchor[0]) <= OCTAVE:
                logits[p + 1] += by_interval[p - anchor[0] + OCTAVE]
    return logits


def greedy(head: Weights, vector: Array, notes: Sequence[int] = ()) -> Array:
    """Return the frame in which each choice is the most probable one, (P,) of 0 and 1.

    Of a mixture, it is the more probable of that frame and the candidates.

    Args:
        head: weights of the head.
        vector: (H,).
        notes: for the chord head, the notes to begin with, descending.
    """
    if "logits.weight" in head:
        return (linear(head, "logits", vector) > 0).astype(float)
    if inner := part(head, "head"):
        own, candidates, log_weights = split_mixture(inner, vector)
        frames = [greedy(inner, own), *candidates[np.isfinite(log_weights[1:])]]
        return min(frames, key=lambda frame: nll(head, vector, frame))
    notes = list(notes)
    while choice := int(chord_logits(head, vector, notes).argmax()):
        notes.append(choice - 1)
    frame = np.zeros(len(head["base.weight"]) - 1)
    frame[notes] = 1
    return frame


def slope(
    loss: Callable[[Weights], float], weights: Weights, direction: Weights, step: float
) -> float:
    """Return the slope of a loss, of the weights of a model, along a direction in which it learns.

    The weights of candidates learn from the mixture, all others as if there were none.
    """
    for_mixture = {n: direction[n] * n.startswith("candidates.") for n in weights}
    alone, for_alone = (
        {
            name.replace("head.head.", "head."): array
            for name, array in arrays.items()
            if not name.startswith("candidates.")
        }
        for arrays in (weights, direction)
    )
    total = 0.0
    for start, moved in ((weights, for_mixture), (alone, for_alone)):
        sides = [
            loss({name: array + sign * moved[name] for name, array in start.items()})
            for sign in (step, -step)
        ]
        total += (sides[0] - sides[1]) / (2 * step)
    return total
