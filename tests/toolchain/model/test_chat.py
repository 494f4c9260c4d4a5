"""Chat templates as published models have them: rendered as transformers does, and said in pieces."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers.utils.chat_template_utils import render_jinja_template

from exporters.artifact.errors import SlmcError
from exporters.artifact.text_rules import Chat
from targets.device.continuation import ArtifactError
from toolchain.model.chat import Template, chat_rules, conversation, pieced, prompt_text

TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou help.<|im_end|>\n' }}{% endif %}{{ '<|im_start|>' + message['role'] + '\n' + "
    "message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
    "{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}"
    "{% set system_message = false %}{% endif %}{% for message in loop_messages %}"
    "{% if loop.index0 == 0 and system_message != false %}"
    "{% set content = '<<SYS>>\n' + system_message + '\n<</SYS>>\n\n' + message['content'] %}"
    "{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}"
    "{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}{% for message in messages %}{% if message['role'] == 'assistant' %}{% set role = 'model' %}"
    "{% else %}{% set role = message['role'] %}{% endif %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
BLOCKS = """{%- for message in messages %}
    {%- if message.role == 'assistant' %}
        {%- generation %}
{{- message.content + eos_token }}
        {%- endgeneration %}
    {%- else %}
{{- '[' + message.role + '] ' + message.content + '\\n' }}
    {%- endif %}
    {%- if message.content == 'stop' %}{%- break %}{%- endif %}
{%- endfor %}
{% if add_generation_prompt %}
[assistant] {% endif %}"""
DATED = "{{ strftime_now('%d %b %Y') }}\n{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
SHOUTED = "{% for m in messages %}{{ m.role }}: {{ m.content | upper }}\n{% endfor %}"
TWICE = "{% for m in messages %}{{ m.content }} {{ m.content }}\n{% endfor %}"
LAST = "{% set m = messages[-1] %}<u>{{ m.content }}<a>"
MESSAGES = ("What is the capital of France?", "  two\nlines  ", "größer 😀 {{ x }} <s>")


def tokenizer() -> Tokenizer:
    made = Tokenizer(WordLevel({"a": 0}, unk_token="a"))
    made.add_special_tokens(["</s>", "<|im_end|>", "<end_of_turn>"])
    return made


def rules(source: str) -> Chat:
    return chat_rules(Template(source, TOKENS), tokenizer())


def reference(source: str, messages: list[dict[str, str]], *, ask: bool = True) -> str:
    rendered, _ = render_jinja_template([messages], chat_template=source, add_generation_prompt=ask, **TOKENS)
    text: str = rendered[0]
    return text


TOLD: dict[str, tuple[str, tuple[str, ...], tuple[str, ...] | None, tuple[str, ...] | None, bool, tuple[int, ...]]] = {
    "chatml": (
        CHATML,
        ("<|im_start|>system\nYou help.<|im_end|>\n<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"),
        ("<|im_start|>system\n", "<|im_end|>\n<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"),
        ("<|im_end|>\n<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"),
        False,
        (2,),
    ),
    "llama 2": (
        LLAMA2,
        ("<s>[INST] ", " [/INST]"),
        ("<s>[INST] <<SYS>>\n", "\n<</SYS>>\n\n", " [/INST]"),
        None,  # a space before the answer is written that was not read
        True,
        (1,),
    ),
    "gemma": (
        GEMMA,
        ("<s><start_of_turn>user\n", "<end_of_turn>\n<start_of_turn>model\n"),
        None,
        ("<end_of_turn>\n<start_of_turn>user\n", "<end_of_turn>\n<start_of_turn>model\n"),
        True,
        (3,),
    ),
    "blocks": (
        BLOCKS,
        ("[user] ", "\n[assistant] "),
        ("[system] ", "\n[user] ", "\n[assistant] "),
        None,
        False,
        (1,),
    ),
}


@pytest.mark.parametrize("name", TOLD)
def test_a_template_in_pieces(name: str) -> None:
    source, user, system, following, trim, end = TOLD[name]
    chat = rules(source)
    assert chat == Chat(source, TOKENS, user, system, following, trim, end, None)


@pytest.mark.parametrize("name", TOLD)
@pytest.mark.parametrize("question", MESSAGES)
@pytest.mark.parametrize("system", [None, "Be brief.\nAlways."])
def test_pieces_and_template_write_what_transformers_writes(name: str, question: str, system: str | None) -> None:
    chat = rules(TOLD[name][0])
    if system is not None and chat.system is None:
        with pytest.raises(SlmcError, match="refuses this conversation: System role not supported"):
            prompt_text(chat, question, system)
        with pytest.raises(ArtifactError, match="no place for a system message"):
            pieced(chat, question, system)
        return
    asked = question.strip() if chat.trim else question
    expected = reference(chat.template, conversation(asked, system))
    assert prompt_text(chat, question, system) == expected
    assert pieced(chat, question, system) == expected


@pytest.mark.parametrize("name", ["chatml", "gemma"])
def test_a_further_question_is_written_as_the_whole_conversation_would_be(name: str) -> None:
    chat = rules(TOLD[name][0])
    assert chat.following is not None
    messages = [*conversation("One?"), {"role": "assistant", "content": "Yes."}, *conversation("Two?")]
    before, after = chat.following
    assert pieced(chat, "One?") + "Yes." + before + "Two?" + after == reference(chat.template, messages)


REFUSED = {
    "the date": (DATED, "writes the date of the day"),
    "capitals": (SHOUTED, "does not write a question exactly once"),
    "twice": (TWICE, "does not write a question exactly once"),
    "no Jinja": ("{% for %}", "cannot be rendered"),
    "a system that is left out": (LAST, None),
    "an attribute that nobody has": ("{{ messages[0].content.nothing.at.all }}", "cannot be rendered"),
    "a way out of the sandbox": ("{{ messages.__class__.__mro__[1].__subclasses__() }}", "cannot be rendered"),
    "without end": ("{% for i in range(10 ** 9) %}x{% endfor %}", "cannot be rendered"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_templates_that_cannot_be_said_in_pieces(name: str) -> None:
    source, words = REFUSED[name]
    chat = rules(source)
    if words is None:
        assert chat.user == ("<u>", "<a>") and chat.system is None
        with pytest.raises(SlmcError, match="--system: the model's chat template has no place for a system message"):
            prompt_text(chat, "Q", "S")
        return
    assert chat.user is None and chat.refusal is not None and words in chat.refusal
    with pytest.raises(ArtifactError, match="--chat: not without a template engine"):
        pieced(chat, "Hello")


def test_the_host_still_renders_what_has_no_pieces() -> None:
    assert prompt_text(rules(SHOUTED), "Hello", None) == "user: HELLO\n"
