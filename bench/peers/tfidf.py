"""Words counted, without any source: the accuracy of TF-IDF and logistic regression, for bench/rank_quality.py.

usage: tfidf.py DIR        DIR: train, validation and test.jsonl (text, label); prints {"accuracy": ..., "examples": ...}

TF-IDF as scikit-learn's default (words of two letters and more, idf = ln((1 + n) / (1 + df)) + 1, rows of length 1);
multinomial regression by L-BFGS, its penalty the best of several on the validation texts.
"""
import collections
import json
import math
import pathlib
import re
import sys

import torch


def read(file):
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [re.findall(r"\w\w+", row["text"].lower()) for row in rows], [str(row["label"]) for row in rows]


def matrix(texts, vocabulary, idf):
    places, values = [[], []], []
    for row, words in enumerate(texts):
        counts = collections.Counter(word for word in words if word in vocabulary)
        weights = {word: count * idf[word] for word, count in counts.items()}
        length = math.sqrt(sum(weight**2 for weight in weights.values())) or 1
        for word, weight in weights.items():
            places[0].append(row)
            places[1].append(vocabulary[word])
            values.append(weight / length)
    return torch.sparse_coo_tensor(places, values, (len(texts), len(vocabulary)), dtype=torch.float64)


def learned(features, labels, classes, penalty):
    weight = torch.zeros(features.shape[1], classes, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=100, line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        value = torch.nn.functional.cross_entropy(torch.sparse.mm(features, weight) + bias, labels, reduction="sum")
        value = value + weight.square().sum() / (2 * penalty)
        value.backward()
        return value
    optimizer.step(loss)
    return weight.detach(), bias.detach()


def main():
    folder = pathlib.Path(sys.argv[1])
    (train, train_labels), (validation, validation_labels), (test, test_labels) = (
        read(folder / f"{split}.jsonl") for split in ("train", "validation", "test"))
    frequency = collections.Counter(word for words in train for word in set(words))
    vocabulary = {word: place for place, word in enumerate(sorted(frequency))}
    idf = {word: math.log((1 + len(train)) / (1 + count)) + 1 for word, count in frequency.items()}
    names = {name: place for place, name in enumerate(sorted(set(train_labels)))}
    features = matrix(train, vocabulary, idf)
    labels = torch.tensor([names[label] for label in train_labels])

    def accuracy(model, texts, wanted):
        predicted = (torch.sparse.mm(matrix(texts, vocabulary, idf), model[0]) + model[1]).argmax(1).tolist()
        return sum(names.get(label) == guess for label, guess in zip(wanted, predicted)) / len(wanted)
    models = [learned(features, labels, len(names), penalty) for penalty in (0.1, 1, 10, 100)]
    best = max(models, key=lambda model: accuracy(model, validation, validation_labels))
    print(json.dumps({"accuracy": accuracy(best, test, test_labels), "examples": len(test)}))


if __name__ == "__main__":
    main()
