#!/usr/bin/env python3
"""What graft trained and saved, transformers and PEFT load, with the same ids, the same logits and the same prompts.

usage: interop.py GRAFT      (make interop; needs transformers and peft, and no network)

Tiny sources with random weights are made by transformers, go through `graft finetune`, and the model/ folder is loaded by
name of its task. BERT, RoBERTa, DeBERTa v1, DeBERTa v3 (SentencePiece), CXR-BERT (saved as BERT), LLaMA, StarCoder v1 and v2;
BERT and RoBERTa also for labels on words, several labels, values and, adapted, masked language modelling; LoRA adapters
beside LLaMA for classification and for causal language modelling, its head among them; conversations by the saved chat
template.
"""
import json
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import warnings

import torch
import transformers
from peft import PeftModel
from safetensors.torch import load_file, save_file

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
warnings.filterwarnings("ignore")
graft = pathlib.Path(sys.argv[1]).resolve()
parity = pathlib.Path(__file__).resolve().parent.parent / "parity"
scratch = pathlib.Path(tempfile.mkdtemp(prefix="graft-interop-"))
failures = 0

small = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, max_position_embeddings=128)
relative = dict(relative_attention=True, position_biased_input=False, pos_att_type=["c2p", "p2c"], type_vocab_size=0)


def vocabulary(tokenizer):
    return json.loads((parity / "tokenizers" / tokenizer / "config.json").read_text())["vocab_size"]


def padding(tokenizer):
    """The id of [PAD] in a vocabulary of words; these fixtures do not have it at the front."""
    folder = parity / "tokenizers" / tokenizer
    if (folder / "vocab.json").exists():
        return json.loads((folder / "vocab.json").read_text())["[PAD]"]
    return (folder / "vocab.txt").read_text().split("\n").index("[PAD]") if (folder / "vocab.txt").exists() else 0


def source(name, model, tokenizer, config=None, extra=None):
    """A folder as published: weights, config, and the tokenizer's files of a fixture."""
    folder = scratch / name
    torch.manual_seed(1)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 1.0 if parameter.dim() == 1 else 0.0, 0.2)
    model.save_pretrained(folder)
    for file in (parity / "tokenizers" / tokenizer).iterdir():
        if file.name not in ("cases.jsonl", "meta.json", "config.json"):
            shutil.copy(file, folder / file.name)
    settings = folder / "config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | (config or {})))
    if extra:
        save_file(load_file(folder / "model.safetensors") | extra, folder / "model.safetensors", {"format": "pt"})
    return folder


def run(arguments, text=""):
    done = subprocess.run([graft, *map(str, arguments)], input=text, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"graft {' '.join(map(str, arguments))}: exit {done.returncode}\n{done.stderr}")
    return done.stdout


def finetuned(folder, data, *settings):
    out = scratch / f"{folder.name}-{data.name}-{len(settings)}-run"
    sets = ["finetune.head.epochs=2", "finetune.head.min_epochs=1", "finetune.head.learning_rates=[1e-2]", "finetune.head.weight_decays=[0.01]",
            "finetune.unfreeze.max_units=1", "finetune.unfreeze.epochs=1", "finetune.unfreeze.learning_rate=1e-2",
            "finetune.full.when=\"never\"", "finetune.head.verdict=false", *settings]
    run(["finetune", "--quiet", "--source", folder, "--data", data, "--out", out, *sum((["--set", s] for s in sets), [])])
    return out / "model"


def compare(title, folder, model, name="logits"):
    """Logits of both on the same ids, one row shorter than the other; theirs in float64, for in float32 theirs round too."""
    global failures
    ids = torch.randint(5, 200, (2, 12), generator=torch.Generator().manual_seed(3))
    mask = torch.ones_like(ids)
    mask[1, 9:] = 0
    pad = model.config.pad_token_id
    ids[1, 9:] = 0 if pad is None else pad
    save_file({"input_ids": ids, "attention_mask": mask}, scratch / "inputs.safetensors")
    run(["forward", "--model", folder, "--inputs", scratch / "inputs.safetensors", "--outputs", scratch / "outputs.safetensors"])
    ours = load_file(scratch / "outputs.safetensors")[name]
    with torch.no_grad():
        theirs = model.double().eval()(input_ids=ids, attention_mask=mask).logits.float()
    difference = (ours - theirs).abs()
    if theirs.dim() == 3:
        difference = difference * mask.unsqueeze(-1)
    off = (difference.max() / theirs.abs().max()).item()
    failures += not off < 1e-5
    print(f"{'ok  ' if off < 1e-5 else 'BAD '} {title}: logits differ by {off:.1e} of the largest")


def check(title, what, same):
    global failures
    failures += not same
    print(f"{'ok  ' if same else 'BAD '} {title}: {what}")


def compare_ids(title, folder):
    texts = ["The report shows no change, since 2019.", "a[1] = b + c", "unbelievable results were found in the lungs"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    for what, pairs in ("ids", None), ("ids and types of pairs", texts[::-1]):
        rows = [{"text": t} for t in texts] if pairs is None else [{"text": t, "pair": p} for t, p in zip(texts, pairs)]
        ours = [json.loads(line) for line in run(["tokenize", "--model", folder], "\n".join(map(json.dumps, rows))).splitlines()]
        theirs = tokenizer(texts, pairs)
        same = [row["ids"] for row in ours] == theirs["input_ids"]
        if "token_type_ids" in theirs:
            same = same and [row["type_ids"] for row in ours] == theirs["token_type_ids"]
        check(title, what + " of AutoTokenizer", same)


rows = random.Random(1)
classes = scratch / "classes"
classes.mkdir()
talks = scratch / "talks"
talks.mkdir()
for split, count in ("train", 24), ("validation", 8), ("test", 8):
    texts = [f"case {rows.randrange(99)} is {'good' if i % 2 else 'bad'} news" for i in range(count)]
    (classes / f"{split}.jsonl").write_text("".join(json.dumps({"text": t, "label": "yes" if "good" in t else "no"}) + "\n" for t in texts))
    (talks / f"{split}.jsonl").write_text("".join(json.dumps({"messages": [
        {"role": "system", "content": "Be brief."}, {"role": "user", "content": f"  What of {t}? "}, {"role": "assistant", "content": "yes\n" if "good" in t else "no"}]}) + "\n" for t in texts))

sets = {task: scratch / task for task in ("tokens", "multilabel", "regression")}
for task, folder in sets.items():
    folder.mkdir()
    for split, count in ("train", 24), ("validation", 8), ("test", 8):
        lines = []
        for i in range(count):
            words = ["case", str(rows.randrange(99)), "is", "good" if i % 2 else "bad", "news"]
            label = {"tokens": ["B-JUDGEMENT" if w in ("good", "bad") else "O" for w in words],
                     "multilabel": ["known"] * (i % 2) + ["odd"] * (i % 3 == 0), "regression": i % 5 / 2}[task]
            lines.append(json.dumps({"text": words if task == "tokens" else " ".join(words), "label": label}))
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
(scratch / "corpus.txt").write_text("".join(f"The case of {rows.randrange(99)} is known to be {w} news.\n\n" for w in ("good", "bad") * 40))

v1, v3, roberta, lower, starcoder, llama2, llama3 = "bytebpe-deberta", "spm-unigram", "bytebpe-roberta", "wordpiece-lower", "bytebpe-starcoder", "spm-bpe-llama", "bytebpe-llama3"
bert = transformers.BertConfig(vocab_size=vocabulary(lower), pad_token_id=padding(lower), **small)
special = json.loads((parity / "cxr-bert-text/model/config.json").read_text())
projection = {"cls_projection_head.dense_to_hidden.weight": torch.randn(16, 32), "cls_projection_head.dense_to_hidden.bias": torch.randn(16),
              "cls_projection_head.LayerNorm.weight": torch.ones(16), "cls_projection_head.LayerNorm.bias": torch.zeros(16),
              "cls_projection_head.dense_to_output.weight": torch.randn(16, 16), "cls_projection_head.dense_to_output.bias": torch.randn(16)}
llama = dict(small, num_key_value_heads=2, pad_token_id=None)
sources = {
    "BERT": source("bert", transformers.BertForMaskedLM(bert), lower),
    "RoBERTa": source("roberta", transformers.RobertaForMaskedLM(transformers.RobertaConfig(
        vocab_size=vocabulary(roberta), type_vocab_size=1, **(small | {"max_position_embeddings": 130}))), roberta),
    "DeBERTa v1": source("deberta", transformers.DebertaForMaskedLM(transformers.DebertaConfig(vocab_size=vocabulary(v1), pad_token_id=padding(v1), **small, **relative)), v1),
    "DeBERTa v3": source("deberta-v3", transformers.DebertaV2ForMaskedLM(transformers.DebertaV2Config(
        vocab_size=vocabulary(v3) + 9, position_buckets=16, norm_rel_ebd="layer_norm", share_att_key=True, **small, **relative)), v3),
    "CXR-BERT": source("cxr-bert", transformers.BertForMaskedLM(bert), lower, {"model_type": "cxr-bert", "architectures": ["CXRBertModel"],
                       "projection_size": 16, "auto_map": special.get("auto_map", {"AutoModel": "modeling_cxrbert.CXRBertModel"})}, projection),
    "LLaMA 2": source("llama-2", transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=vocabulary(llama2), **llama)), llama2),
    "LLaMA 3": source("llama-3", transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=vocabulary(llama3), tie_word_embeddings=True, bos_token_id=1905, eos_token_id=1906, **llama)), llama3),
    "StarCoder": source("starcoder", transformers.GPTBigCodeForCausalLM(transformers.GPTBigCodeConfig(
        vocab_size=vocabulary(starcoder), n_embd=32, n_layer=2, n_head=4, n_inner=48, n_positions=128, bos_token_id=0, eos_token_id=0)), starcoder),
    "StarCoder2": source("starcoder2", transformers.Starcoder2ForCausalLM(transformers.Starcoder2Config(
        vocab_size=vocabulary(starcoder), num_key_value_heads=2, bos_token_id=0, eos_token_id=0, **small)), starcoder),
}
for title, folder in sources.items():
    model = finetuned(folder, classes)
    compare(f"{title}, classification", model, transformers.AutoModelForSequenceClassification.from_pretrained(model, dtype=torch.float32))
    if title != "StarCoder2":  # transformers 5 rebuilds that tokenizer without its digits; graft follows tokenizer.json
        compare_ids(title, model)

for title in "BERT", "RoBERTa":
    for task, data in sets.items():
        model = finetuned(sources[title], data, f'data.task="{task}"')
        loader = transformers.AutoModelForTokenClassification if task == "tokens" else transformers.AutoModelForSequenceClassification
        theirs = loader.from_pretrained(model, dtype=torch.float32)
        compare(f"{title}, {task}", model, theirs)
        wanted = {"tokens": {0: "B-JUDGEMENT", 1: "O"}, "multilabel": {0: "known", 1: "odd"}, "regression": {0: "LABEL_0"}}[task]
        problem = {"tokens": None, "multilabel": "multi_label_classification", "regression": "regression"}[task]
        check(f"{title}, {task}", "labels and problem_type", theirs.config.id2label == wanted and theirs.config.problem_type == problem)
    out = scratch / f"{title}-adapted"
    run(["adapt", "--quiet", "--source", sources[title], "--corpus", scratch / "corpus.txt", "--out", out,
         "--set", "adapt.epochs=1", "--set", "adapt.max_length=32", "--set", "adapt.held_out_fraction=0.2"])
    model, report = transformers.AutoModelForMaskedLM.from_pretrained(out / "model", dtype=torch.float32, output_loading_info=True)
    compare(f"{title}, adapted", out / "model", model)
    check(f"{title}, adapted", "every weight has its place", not report["missing_keys"] and not report["unexpected_keys"])
    compare_ids(f"{title}, adapted", out / "model")

template = f"language.chat_template=\"{parity / 'chat_templates/headers.jinja'}\""
causal = ["data.task=\"causal_lm\"", template, "language.date=\"2026-01-31\""]
for title in "LLaMA 2", "LLaMA 3":
    model = finetuned(sources[title], talks, *causal)
    compare(f"{title}, instructions", model, transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32))
tokenizer = transformers.AutoTokenizer.from_pretrained(model)
answers = [json.loads(line) for line in run(["predict", "--model", model, "--json", "--max-new-tokens", 1, talks / "test.jsonl"]).splitlines()]
theirs = [tokenizer.apply_chat_template(row["messages"], tokenize=False, add_generation_prompt=True) for row in answers]
check("LLaMA 3", "prompts of apply_chat_template", [row["text"] for row in answers] == theirs)

# What counts: the template marks it, so transformers can say it too.
(model / "chat_template.jinja").write_text((parity / "chat_templates/marked.jinja").read_text())
tokenizer = transformers.AutoTokenizer.from_pretrained(model)
same = True
for line in (talks / "test.jsonl").read_text().splitlines():
    ours = json.loads(run(["tokenize", "--model", model], line + "\n"))
    theirs = tokenizer.apply_chat_template(json.loads(line)["messages"], return_dict=True, return_assistant_tokens_mask=True)
    wanted = [i if m else -100 for i, m in zip(theirs["input_ids"], theirs["assistant_masks"])][1:] + [-100]
    same = same and ours == {"ids": theirs["input_ids"], "labels": wanted} and any(theirs["assistant_masks"])
check("LLaMA 3", "ids and assistant_masks of apply_chat_template", same)

adapters = ["lora.rank=4", "lora.merge=false"]
for title in "LLaMA 2", "LLaMA 3", "StarCoder2":
    model = finetuned(sources[title], classes, *adapters)
    labels = json.loads((model / "config.json").read_text())
    base = transformers.AutoModelForSequenceClassification.from_pretrained(sources[title], num_labels=2, dtype=torch.float32, pad_token_id=labels["pad_token_id"])
    compare(f"{title}, adapters for classification in PEFT", model, PeftModel.from_pretrained(base, model))
    if title == "StarCoder2":
        continue
    model = finetuned(sources[title], talks, *causal, *adapters)
    base = transformers.AutoModelForCausalLM.from_pretrained(sources[title], dtype=torch.float32)
    compare(f"{title}, adapters for instructions in PEFT", model, PeftModel.from_pretrained(base, model))
model = finetuned(sources["LLaMA 2"], talks, *causal, *adapters, 'lora.targets=["lm_head", "q_proj"]')
base = transformers.AutoModelForCausalLM.from_pretrained(sources["LLaMA 2"], dtype=torch.float32)
compare("LLaMA 2, adapters of the head too in PEFT", model, PeftModel.from_pretrained(base, model))

shutil.rmtree(scratch)
sys.exit(failures > 0)
