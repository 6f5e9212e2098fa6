#!/usr/bin/env python3
"""Writes scores_reference.json beside this file: random features and what the scores' formulas give for them, in
numpy; the same for those of a real network (real_features.json, by real_features.py), which stand there.

usage: scores_reference.py      (needs numpy)

Written from the papers, in the plainest form (dense inverses, loops over examples and pairs, refits for leave-one-out),
so that it shares no derivation with graft/select/scores.cpp.
"""
import json
import math
import pathlib

import numpy as np

rng = np.random.default_rng(7)


def log_me(F, Y):
    """The authors' iteration, its matrices inverted and its evidence as a determinant of d x d."""
    n, d = F.shape
    G, values = F.T @ F, []
    for y in Y.T:
        a = b = 1.0
        for _ in range(1000):
            m = b * np.linalg.solve(a * np.eye(d) + b * G, F.T @ y)
            eigenvalues = np.linalg.eigvalsh(b * G).clip(0)
            gamma = (eigenvalues / (a + eigenvalues)).sum()
            weight, residual, before = m @ m, ((y - F @ m) ** 2).sum(), a / b
            a, b = gamma / (weight + 1e-5), (n - gamma) / (residual + 1e-5)
            if abs(a / b - before) <= 1e-3 * before:
                break
        evidence = (d / 2 * math.log(a) + n / 2 * math.log(b) - np.linalg.slogdet(a * np.eye(d) + b * G)[1] / 2
                    - b / 2 * residual - a / 2 * weight - n / 2 * math.log(2 * math.pi))
        values.append(evidence / n)
    return np.mean(values)


def h_score(F, y):
    X = F - F.mean(0)
    n, d = X.shape
    S = X.T @ X / n
    mu = np.trace(S) / d
    a = min(1, sum(((np.outer(x, x) - S) ** 2).sum() for x in X) / n**2 / ((S - mu * np.eye(d)) ** 2).sum())
    g = np.zeros_like(X)
    for c in np.unique(y):
        g[y == c] = X[y == c].mean(0)
    return np.trace(np.linalg.pinv((1 - a) * S + a * mu * np.eye(d)) @ ((1 - a) * (g.T @ g / n)))


def leep(P, y):
    J = np.array([P[y == c].sum(0) for c in range(y.max() + 1)]) / len(y)
    K = J / J.sum(0)
    return np.mean([math.log(sum(K[y[i], z] * P[i, z] for z in range(P.shape[1]))) for i in range(len(y))])


def nce(P, y):
    source, total = P.argmax(1), 0.0
    for a in np.unique(source):
        for c in np.unique(y):
            p = np.mean((source == a) & (y == c))
            total += p * math.log(p / np.mean(source == a)) if p > 0 else 0
    return total


def trans_rate(F, y, epsilon=1e-4):
    X = F - F.mean(0)

    def rate(Z):
        return np.linalg.slogdet(np.eye(Z.shape[1]) + Z.T @ Z / (len(Z) * epsilon))[1] / 2
    return rate(X) - np.mean([rate(X[y == c]) for c in np.unique(y)])


def ranks(values):
    order, result, i = np.argsort(values, kind="stable"), np.empty(len(values)), 0
    while i < len(values):
        j = i
        while j + 1 < len(values) and abs(values[order[j + 1]] - values[order[i]]) < 1e-11:
            j += 1
        result[order[i:j + 1]] = (i + j) / 2 + 1
        i = j + 1
    return result


def parc(F, y):
    lower = np.tril_indices(len(y), -1)
    a, b = ((1 - np.corrcoef(M))[lower] for M in (F, np.eye(y.max() + 1)[y]))
    return 100 * np.corrcoef(ranks(a), ranks(b))[0, 1]


def nearest_neighbours(F, y, k=5):
    X = F / np.linalg.norm(F, axis=1, keepdims=True)
    S, right = X @ X.T, 0
    np.fill_diagonal(S, -9)
    for i in range(len(y)):
        votes = {}
        for j in np.argsort(-S[i])[:k]:
            count, nearness = votes.get(y[j], (0, 0))
            votes[y[j]] = (count + 1, nearness + S[i, j])
        right += max(votes, key=lambda c: votes[c]) == y[i]
    return right / len(y)


def linear_probe(F, y, folds=5):
    classes, right = y.max() + 1, 0
    part, dealt = np.zeros(len(y), int), [0] * (y.max() + 1)
    for i, c in enumerate(y):
        part[i] = dealt[c] % folds
        dealt[c] += 1
    for k in range(folds):
        inside = part != k
        mean, scale = F[inside].mean(0), F[inside].std(0)
        X, held_out = (F[inside] - mean) / scale, (F[~inside] - mean) / scale
        Y = np.eye(classes)[y[inside]]
        n, best = len(X), -1
        D = np.hstack([X, np.ones((n, 1))])  # the intercept is not penalised
        for strength in (1e-3, 1e-2, 1e-1, 1, 10, 100):
            A = D.T @ D + np.diag([strength * n] * X.shape[1] + [0.0])
            hits = 0
            for i in range(n):
                w = np.linalg.solve(A - np.outer(D[i], D[i]), D.T @ Y - np.outer(D[i], Y[i]))
                hits += np.argmax(D[i] @ w) == y[inside][i]
            if hits / n > best:
                best = hits / n
                w = np.linalg.solve(A, D.T @ Y)
                prediction = (np.hstack([held_out, np.ones((len(held_out), 1))]) @ w).argmax(1)
        right += (prediction == y[~inside]).sum()
    return right / len(y)


def case(F, y, P):
    n, d = F.shape
    classes = y.max() + 1
    t = np.round(F @ rng.normal(size=d) + 0.3 * rng.normal(size=n), 4)
    return {"n": n, "d": d, "features": F.ravel().tolist(), "labels": y.tolist(), "probabilities": P.ravel().tolist(),
            "targets": t.tolist(), "scores": {
                "log_me": log_me(F, np.eye(classes)[y]), "log_me_regression": log_me(F, t[:, None]),
                "h_score": h_score(F, y), "leep": leep(P, y), "nce": nce(P, y), "trans_rate": trans_rate(F, y),
                "parc": parc(F, y), "nearest_neighbours": float(nearest_neighbours(F, y)),
                "linear_probe": float(linear_probe(F, y))}}


cases = []
for n, d, classes, apart in ((24, 4, 3, 0.8), (20, 30, 2, 0.6), (40, 6, 4, 1.5)):
    y = np.arange(n) % classes
    rng.shuffle(y)
    F = np.round((rng.normal(size=(classes, d)) * apart)[y] + rng.normal(size=(n, d)), 4)
    P = rng.dirichlet(np.ones(4), n) * 0.8
    P[np.arange(n), y % 4] += 0.2
    cases.append(case(F, y, np.round(P, 6)))
real = json.loads(pathlib.Path(__file__).with_name("real_features.json").read_text())
n = real["n"]
of_real = case(np.array(real["features"]).reshape(n, -1), np.array(real["labels"]), np.array(real["probabilities"]).reshape(n, -1))
cases.append({key: value for key, value in of_real.items() if key not in real} | {"file": "real_features.json"})
pathlib.Path(__file__).with_name("scores_reference.json").write_text(json.dumps(cases) + "\n")
