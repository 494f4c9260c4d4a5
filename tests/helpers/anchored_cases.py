"""Calls of attention over a ring and anchors with outputs worked out by hand."""

from __future__ import annotations

import math

import numpy as np
from reading_cases import ROOT2, Case, floats

ANCHORED = [
    # one anchor, a ring of two: token 3 goes to slot 1 + (3 - 1) % 2 = 1, over token 1; query and key are turned by 3
    # radians alike, their score is ln 2; key 0 has 0, token 2 was not present: shares 1 : 2
    Case("over the ring", "AnchoredAttention",
         {"q": floats([[math.log(2) * ROOT2, 0]]), "k": floats([[1, 0]]), "v": floats([[6, 3]]),
          "present": floats([1]), "keys": floats([[[0, 0], [9, 9], [5, 5]]]),
          "values": floats([[[3, 0], [9, 9], [5, 5]]]), "seen": floats([1, 1, 0]), "position": np.array([[3]])},
         [floats([[5, 2]]), floats([[[0, 0], [math.cos(3), math.sin(3)], [5, 5]]]),
          floats([[[3, 0], [6, 3], [5, 5]]]), floats([1, 1, 0])],
         {"heads": 1, "anchors": 1, "theta": 100.0}),
    # a token that is not there gets nothing, and nobody's key is changed but its own
    Case("not there", "AnchoredAttention",
         {"q": floats([[1, 0]]), "k": floats([[1, 2]]), "v": floats([[6, 3]]), "present": floats([0]),
          "keys": floats([[[0, 0], [9, 9]]]), "values": floats([[[0, 0], [9, 9]]]), "seen": floats([0, 0]),
          "position": np.array([[0]])},
         [floats([[0, 0]]), floats([[[1, 2], [9, 9]]]), floats([[[6, 3], [9, 9]]]), floats([0, 0])],
         {"heads": 1, "anchors": 1, "theta": 100.0}),
    # the same places in codes: k turned by 3 radians is (cos 3, sin 3), of steps |cos 3| / 127; 2 of v = (6, 2) is 42.3
    # steps of 6 / 127; q = 0 shares evenly among value 0, (3, 0), and the new one
    Case("codes over the ring", "AnchoredAttentionInt8",
         {"q": floats([[0, 0]]), "k": floats([[1, 0]]), "v": floats([[6, 2]]), "present": floats([1]),
          "keys": np.int8([[[[0, 0], [9, 9], [5, 5]]]]), "values": np.int8([[[[127, 0], [9, 9], [5, 5]]]]),
          "seen": floats([1, 1, 0]), "key_scales": floats([[1, 2, 3]]), "value_scales": floats([[3 / 127, 2, 3]]),
          "position": np.array([[3]])},
         [floats([[4.5, 21 * 6 / 127]]), np.int8([[[[0, 0], [-127, 18], [5, 5]]]]),
          np.int8([[[[127, 0], [127, 42], [5, 5]]]]), floats([1, 1, 0]), floats([[1, -math.cos(3) / 127, 3]]),
          floats([[3 / 127, 6 / 127, 3]])],
         {"heads": 1, "anchors": 1, "theta": 100.0}),
    # the key stored at place 0, (100, 0) of steps ln 2 / 100, and the new one, no step at all: shares 2 : 1
    Case("scores of codes", "AnchoredAttentionInt8",
         {"q": floats([[ROOT2 * math.cos(1), -ROOT2 * math.sin(1)]]), "k": floats([[0, 0]]), "v": floats([[0, 3]]),
          "present": floats([1]), "keys": np.int8([[[[100, 0], [7, 7]]]]), "values": np.int8([[[[10, 0], [7, 7]]]]),
          "seen": floats([1, 0]), "key_scales": floats([[math.log(2) / 100, 1]]), "value_scales": floats([[0.3, 1]]),
          "position": np.array([[1]])},
         [floats([[2, 1]]), np.int8([[[[100, 0], [0, 0]]]]), np.int8([[[[10, 0], [0, 127]]]]), floats([1, 1]),
          floats([[math.log(2) / 100, 1e-12 / 127]]), floats([[0.3, 3 / 127]])],
         {"heads": 1, "anchors": 1, "theta": 100.0}),
]  # fmt: skip
