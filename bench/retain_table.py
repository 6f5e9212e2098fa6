"""What retain_text.py and retain_images.py share: a run's numbers, and the table over methods and seeds."""
import statistics


def numbers(result, seconds):
    """Both tasks as the exported model has them: where a run walks back towards its source, that is behind the last phase."""
    retained, full = result["retained"], result["finetune"]["phases"][-1]
    after = retained.get("result", full["retained"])
    return {"source_before": retained["source"]["value"], "source_after": after["value"], "cka": after["cka"],
            "target": result["test"]["accuracy"], "seconds": seconds,
            "share": retained.get("taken", {}).get("share", 1.0),
            "curve": [{"phase": point["phase"], "epoch": point["epoch"], "gain": point["gain"], "lost": point["lost"]}
                      for point in retained.get("curve", [])],
            "path": [{"share": point["share"], "lost": retained["path"][0]["retained"]["value"] - point["retained"]["value"],
                      "target": point[result["finetune"]["metric"]]} for point in retained.get("path", [])]}


def spread(values):
    mean = 100 * statistics.mean(values)
    return f"{mean:.1f}" if len(values) < 2 else f"{mean:.1f} +- {100 * statistics.stdev(values):.1f}"


def table(rows, most_lost=1.0, most_less=0.5):
    """`rows`: by method, a part a seed; "none" is the unprotected one. Says which methods lose at most `most_lost` points of
    the first task and reach the second to `most_less` points of the unprotected."""
    def lost(part):
        return part["source_before"] - part["source_after"]
    print(f"{'method':<26}{'first task':>14}{'lost':>14}{'second':>14}{'cka':>7}{'way':>6}{'seconds':>9}")
    for name, parts in rows.items():
        print(f"{name:<26}{spread([p['source_after'] for p in parts]):>14}{spread([lost(p) for p in parts]):>14}"
              f"{spread([p['target'] for p in parts]):>14}{statistics.mean(p['cka'] for p in parts):>7.3f}"
              f"{statistics.mean(p['share'] for p in parts):>6.2f}{statistics.mean(p['seconds'] for p in parts):>9.0f}")
    print("\ngain of the second task / loss of the first after each epoch, points on validation data")
    for name, parts in rows.items():
        epochs = min(len(part["curve"]) for part in parts)
        points = [tuple(100 * statistics.mean(part["curve"][i][key] for part in parts) for key in ("gain", "lost"))
                  for i in range(epochs)]
        print(f"{name:<26}" + "  ".join(f"{gain:+.1f}/{loss:.1f}" for gain, loss in points))
    if "none" not in rows:
        return
    free = statistics.mean(part["target"] for part in rows["none"])
    meet = [name for name, parts in rows.items() if 100 * statistics.mean(lost(part) for part in parts) <= most_lost
            and 100 * (free - statistics.mean(part["target"] for part in parts)) <= most_less]
    print(f"\nat most {most_lost:g} points lost at no more than {most_less:g} less than unprotected: {', '.join(meet) or 'no method'}")
