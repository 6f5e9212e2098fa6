"""Makes cases.jsonl: what transformers renders from the templates of this folder, and which parts it calls generated.

usage: make_chat_templates.py    (with transformers and jinja2; the day is 2026-01-31 in all cases)
The templates are written for this test in the manner of the published ones: ChatML, the same with generation tags, LLaMA 2,
LLaMA 3, Qwen 3, Gemma.
"""
import datetime
import json
import pathlib

import transformers
from transformers.utils import chat_template_utils


class Day(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2026, 1, 31)


chat_template_utils.datetime = Day
here = pathlib.Path(__file__).parent
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
TOOL = {"type": "function", "function": {"name": "weather", "description": "The weather <today> & \"tomorrow\" in Zürich.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer", "default": 1}},
                       "required": ["city"], "empty": {}, "none": None, "list": [1, 2.5, True, []]}}}
say = lambda role, content: {"role": role, "content": content}
CONVERSATIONS = {
    "two turns": {"messages": [say("user", "What is 2 + 2?"), say("assistant", "4.")]},
    "system": {"messages": [say("system", "Be brief.\n"), say("user", "  Say hi in Japanese. "), say("assistant", "日本語: こんにちは 😀\n")]},
    "four turns": {"messages": [say("user", "a"), say("assistant", "b"), say("user", "c\nd"), say("assistant", "e")]},
    "thoughts": {"messages": [say("user", "1?"), say("assistant", "<think>\nhm\n</think>\n\none"), say("user", "2?"),
                              say("assistant", "<think>\nhm hm\n</think>\n\ntwo")]},
    "tools": {"messages": [say("user", "Weather?"),
                           {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": {"name": "weather", "arguments": {"city": "Zürich", "days": 2}}}]},
                           say("tool", "sunny"), say("assistant", "It is sunny.")], "tools": [TOOL]},
    "parts": {"messages": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]},
                           say("assistant", "A cat.")]},
    "two users": {"messages": [say("user", "a"), say("user", "b"), say("assistant", "c")]},
    "<markup> & 'quotes'": {"messages": [say("user", "<b>\"x\" & 'y'</b> {{ 1 }} {% if %}"), say("assistant", "\\n \t ok")]},
}
FITS = {"chatml": ["two turns", "system", "four turns", "thoughts", "two users", "<markup> & 'quotes'"],
        "marked": ["two turns", "system", "four turns", "<markup> & 'quotes'"],
        "inst": ["two turns", "system", "four turns", "two users", "<markup> & 'quotes'"],
        "headers": ["two turns", "system", "four turns", "tools", "<markup> & 'quotes'"],
        "thoughts": ["two turns", "four turns", "thoughts", "<markup> & 'quotes'"],
        "turns": ["two turns", "system", "four turns", "parts", "two users"]}

with open(here / "cases.jsonl", "w", encoding="utf-8") as out:
    for name, conversations in FITS.items():
        template = (here / f"{name}.jinja").read_text(encoding="utf-8")
        for which in conversations:
            conversation = CONVERSATIONS[which]
            case = {"template": name, "conversation": conversation}
            try:
                texts, spans = chat_template_utils.render_jinja_template(
                    [conversation["messages"]], tools=conversation.get("tools"), chat_template=template,
                    return_assistant_tokens_mask=True, **TOKENS)
                case["text"] = texts[0]
                if name == "marked":
                    case["generated"] = [texts[0][begin:end] for begin, end in spans[0]]
                texts, _ = chat_template_utils.render_jinja_template(
                    [conversation["messages"][:-1]], tools=conversation.get("tools"), chat_template=template,
                    add_generation_prompt=True, **TOKENS)
                case["prompt"] = texts[0]
            except Exception as e:
                case["refused"] = str(e)
            out.write(json.dumps(case, ensure_ascii=True) + "\n")
print("transformers", transformers.__version__)
