"""Options of a config.json, read at one place: which there are, where each may stand, its default, what null means.

A family's options are data, an `OptionTable`. Whatever a config says is in one of four lists of its table: it is read,
it must agree with the weights, it may only have the values that the family computes, or it does not change the
function. What is in none of them is named by `unread`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from exporters.artifact.errors import SlmcError

Config = Mapping[str, Any]
Check = Callable[[str, Any], Any]
"""An option's name and the value that was found, to the value; raises SlmcError if it is none."""

REQUIRED = object()
"""Default of an option that has none."""

ABSENT = object()
"""What null means for most options: as if they were not there."""


@dataclass(frozen=True)
class SameAs:
    """Default or null that is the value of an option read before."""

    name: str


@dataclass(frozen=True)
class Option:
    """One option: places where it may stand, dotted inside a group, the first that has a value wins."""

    places: tuple[str, ...]
    check: Check
    default: Any = REQUIRED
    null: Any = ABSENT


@dataclass(frozen=True)
class Group:
    """Options inside an object that may stand under several names, of which the first that is not empty counts; a name
    may be dotted, of an object inside another.

    keys: all that may stand in it; ignored: those of them that do not change the function.
    """

    names: tuple[str, ...]
    keys: frozenset[str]
    ignored: frozenset[str] = frozenset()


@dataclass(frozen=True)
class OptionTable:
    """The options of a model type.

    read: by our own name. sizes: keys whose value the weights decide. fixed: keys with the only values supported.
    ignored: keys that do not change the function. FIXED and IGNORED are of every table. in_file: whether trainers put
    the config into the file of the weights.
    """

    read: Mapping[str, Option]
    sizes: frozenset[str] = frozenset()
    fixed: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    ignored: frozenset[str] = frozenset()
    groups: Mapping[str, Group] = field(default_factory=dict)
    in_file: bool = False

    def values(self, config: Config, sizes: Mapping[str, int]) -> dict[str, Any]:
        """Every option's value, after comparing the config with the sizes of the weights.

        Raises:
            SlmcError: the config contradicts the weights, lacks something, or asks for what is not supported.
        """
        for key, allowed in (FIXED | dict(self.fixed)).items():
            if key in config and key not in self._own():
                only(key, config[key], allowed)
        for key, size in sizes.items():
            if config.get(key) not in (None, size):
                raise SlmcError(f"config.json: {key} is {config[key]!r}, but the weights have {size}")
        flat = dict(config) | self._grouped(config)
        values: dict[str, Any] = {}
        for name, option in self.read.items():
            values[name] = _value(option, flat, values)
        return values

    def unread(self, config: Config) -> tuple[str, ...]:
        """Keys of a config that the table does not know."""
        return tuple(sorted(config.keys() - self.known()))

    def known(self) -> set[str]:
        """Every key that the table reads, compares, limits or ignores."""
        return self._own() | self.sizes | FIXED.keys() | self.fixed.keys() | IGNORED | self.ignored

    def _own(self) -> set[str]:
        groups = {name.partition(".")[0] for group in self.groups.values() for name in group.names}
        return groups | {place for option in self.read.values() for place in option.places if "." not in place}

    def _grouped(self, config: Config) -> dict[str, Any]:
        """The options inside groups, as `group.key`."""
        found: dict[str, Any] = {}
        for group_name, group in self.groups.items():
            name, inside = next(((n, x) for n in group.names if (x := _inside(config, n))), ("", None))
            if not name:
                continue
            if not isinstance(inside, Mapping):
                raise SlmcError(f"config.json: {name} is {inside!r}; an object is needed")
            unknown = sorted(inside.keys() - group.keys - group.ignored)
            if unknown:
                raise SlmcError(
                    f"config.json: {name} has {', '.join(unknown)}, which is not supported; supported are "
                    f"{', '.join(sorted(group.keys))}"
                )
            found |= {f"{group_name}.{key}": value for key, value in inside.items()}
        return found


def _inside(config: Config, name: str) -> Any:
    """What stands under a dotted name; None if nothing does."""
    found: Any = config
    for part in name.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _value(option: Option, config: Config, before: Mapping[str, Any]) -> Any:
    for place in option.places:
        if place not in config:
            continue
        if config[place] is not None:
            return option.check(place.rpartition(".")[2], config[place])
        if option.null is not ABSENT:
            return _resolved(option.null, before)
    if option.default is REQUIRED:
        key = option.places[0]
        if not config.keys() - {"model_type"}:
            raise SlmcError(
                f"there is no config.json with {key} beside the weights, which do not say it themselves; copy "
                "config.json from where the model came from, and give the directory"
            )
        raise SlmcError(f"config.json: {key} is missing; a number above 0 is needed")
    return _resolved(option.default, before)


def _resolved(value: Any, before: Mapping[str, Any]) -> Any:
    return before[value.name] if isinstance(value, SameAs) else value


def only(key: str, value: Any, allowed: tuple[Any, ...]) -> None:
    """Refuse a value that is not among those that the family computes.

    Raises:
        SlmcError: with what was found and what is supported.
    """
    if not any(value == a and isinstance(value, bool) == isinstance(a, bool) for a in allowed):
        listed = ", ".join("none" if a is None else repr(a) for a in allowed)
        raise SlmcError(f"config.json: {key} is {value!r}, which is not supported; supported: {listed}")


def positive(key: str, value: Any) -> float:
    """A finite number above 0."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value <= 0:
        raise SlmcError(f"config.json: {key} is {value!r}; a number above 0 is needed")
    return value


def whole(key: str, value: Any) -> int:
    """A whole number above 0."""
    number = positive(key, value)
    if not isinstance(number, int):
        raise SlmcError(f"config.json: {key} is {value!r}; a whole number above 0 is needed")
    return number


def flag(key: str, value: Any) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise SlmcError(f"config.json: {key} is {value!r}; true or false is needed")
    return value


def between(low: float, high: float, kind: type = float) -> Check:
    """A finite number from low to high; a whole one if the kind is int."""

    def check(key: str, value: Any) -> Any:
        kinds = (int,) if kind is int else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds):
            raise SlmcError(f"config.json: {key} is {value!r}; allowed is a {kind.__name__}")
        if not (math.isfinite(value) and low <= value <= high):
            raise SlmcError(f"config.json: {key} is {value!r}; allowed is a finite value from {low} to {high}")
        return value

    return check


def one_of(*allowed: Any) -> Check:
    """One of these values."""

    def check(key: str, value: Any) -> Any:
        only(key, value, allowed)
        return value

    return check


def either(on: Any, off: Any) -> Check:
    """True or false, as these two values."""
    return lambda key, value: on if flag(key, value) else off


def each_of(*allowed: Any) -> Check:
    """A list of these values."""

    def check(key: str, value: Any) -> tuple[str, ...]:
        if not isinstance(value, list):
            raise SlmcError(f"config.json: {key} is {value!r}; a list is needed")
        for entry in value:
            only(key, entry, allowed)
        return tuple(value)

    return check


def always(value: Any) -> Option:
    """What a model type does not leave open."""
    return Option((), one_of(value), value)


FIXED: dict[str, tuple[Any, ...]] = {
    "quantization_config": (None,), "compression_config": (None,),
    "partial_rotary_factor": (None, 1), "rotary_pct": (None, 1), "rope_interleaved": (None, False),
    "no_rope_layers": (None,), "no_rope_layer_interval": (None,), "position_embedding_type": (None, "absolute"),
    "alibi": (None, False), "embedding_multiplier": (None, 1), "residual_multiplier": (None, 1),
    "attention_multiplier": (None,), "logits_scaling": (None, 1), "logit_scale": (None, 1),
    "attn_logit_softcapping": (None,), "final_logit_softcapping": (None,), "query_pre_attn_scalar": (None,),
    "scale_embeddings": (None, False), "use_qk_norm": (None, False), "qk_norm": (None, False),
    "qk_layernorm": (None, False), "clip_qkv": (None,), "parallel_attn": (None, False),
    "use_parallel_residual": (None, False), "num_local_experts": (None, 0), "num_experts": (None, 0),
    "pruned_heads": (None, {}), "is_decoder": (None, False), "add_cross_attention": (None, False),
    "is_encoder_decoder": (None, False), "cross_attention_hidden_size": (None,), "chunk_size_feed_forward": (None, 0),
    "tie_encoder_decoder": (None, False),
}  # fmt: skip
"""Options that change the function of a model which has them: the values with which they do not. A table that reads
one of them computes more."""

IGNORED = frozenset(
    {
        "_name_or_path", "_commit_hash", "_attn_implementation", "_attn_implementation_autoset", "architectures",
        "auto_map", "dtype", "torch_dtype", "transformers_version", "model_type", "model_name", "name",
        "transformers.js_config", "unsloth_fixed", "unsloth_version", "unsloth_processed", "is_llama_config",
        "use_cache", "output_attentions", "output_hidden_states", "return_dict", "return_dict_in_generate",
        "output_scores", "torchscript", "use_bfloat16", "gradient_checkpointing", "tf_legacy_loss",
        "initializer_range", "initializer_factor", "init_std", "dropout", "attention_dropout", "hidden_dropout",
        "activation_dropout", "resid_pdrop", "embd_pdrop", "attn_pdrop", "layerdrop", "hidden_dropout_prob",
        "attention_probs_dropout_prob", "classifier_dropout", "pretraining_tp", "router_aux_loss_coef",
        "pad_token_id", "bos_token_id", "eos_token_id", "sep_token_id", "cls_token_id", "unk_token_id",
        "decoder_start_token_id", "forced_bos_token_id", "forced_eos_token_id", "prefix", "task_specific_params",
        "tokenizer_class", "id2label", "label2id", "labels", "pooling", "num_labels", "problem_type",
        "finetuning_task", "max_length", "min_length", "do_sample", "early_stopping", "num_beams",
        "num_beam_groups", "diversity_penalty", "temperature", "top_k", "top_p", "typical_p", "repetition_penalty",
        "length_penalty", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "bad_words_ids",
        "num_return_sequences", "exponential_decay_length_penalty", "suppress_tokens", "begin_suppress_tokens",
        "remove_invalid_values", "keys_to_ignore_at_inference", "neftune_noise_alpha",
    }
)  # fmt: skip
"""Options that do not change what a model computes from tokens: training, sampling, names, and what transformers keeps
there for its own ends. Tensor parallelism splits products and changes rounding alone (transformers 5 ignores it)."""
