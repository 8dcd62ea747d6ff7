"""Classification by text alone: the image's nearest class prompt (Radford et al. 2021, §3.1, arXiv:2103.00020)."""

from types import SimpleNamespace
from typing import Annotated

import torch
import torch.nn.functional as F

from selfsup.arguments import Range, Text
from selfsup.errors import UserError
from selfsup.evals import accuracy, embed, percent

title = "Zero-shot"
parts = ("image_head", "text")                           # of the encoder folder, besides the encoder


def choose(encoder, data, image_head, text, prompts: Annotated[list[Text], Range(min_length=1)]):
    """Chooses on val the template of the list `prompts` ("a {}") under which class names are best told apart.

    image_head maps encoder features (N, d) and text maps token ids (n, L) into the space that they share.
    """
    for prompt in prompts:
        if "{}" not in prompt:
            raise UserError(f'protocols.zero_shot.prompts: "{prompt}" has no {{}} for the class name')
    classes = data.card["classes"]
    if classes == [str(i) for i in range(len(classes))]:
        raise UserError(f"{data.shards}: its classes have numbers and no names, so that a prompt would say "
                        f"\"{prompts[0].replace('{}', '0')}\"; for tars and Parquet files, name them in a file classes.txt "
                        f"beside, one a line")
    texts = {prompt: encode(text, data.tokenizer, [prompt.replace("{}", name) for name in classes])
             for prompt in prompts}
    together = F.normalize(torch.stack(list(texts.values())).mean(0), dim=1)
    features, truth = shared(encoder, image_head, data.val)
    val = {prompt: correct(features, rows, truth).float().mean().item() for prompt, rows in texts.items()}
    val_together = correct(features, together, truth).float().mean()
    best = max(val, key=val.get)                         # the first of equals, in the order of the list
    return SimpleNamespace(
        val_accuracy=percent(val[best]), prompt=best, prompts={prompt: percent(share) for prompt, share in val.items()},
        ensemble=percent(val_together), image_head=image_head, texts=texts[best], together=together)


def test(encoder, data, chosen, bootstrap):
    """Yields accuracy, low, high (percent, test) and val_accuracy of the chosen `prompt`; the val accuracy of every
    template in `prompts`; the test and val accuracy of the `ensemble`, the mean of all templates' text features; and
    `chance`, the accuracy of always guessing the largest class."""
    features, truth = shared(encoder, chosen.image_head, data.test)
    yield from accuracy(correct(features, chosen.texts, truth), bootstrap)
    yield "val_accuracy", chosen.val_accuracy
    yield "prompt", chosen.prompt
    yield "prompts", chosen.prompts
    together = accuracy(correct(features, chosen.together, truth), bootstrap)
    yield "ensemble", dict(together, val_accuracy=chosen.ensemble)
    yield "chance", percent(torch.bincount(truth).max() / len(truth))


@torch.no_grad()
def shared(encoder, image_head, split):
    """Unit image features in the space shared with text (N, d), and labels (N,)."""
    features, labels = embed(encoder, split)
    return F.normalize(image_head(features), dim=1), labels


@torch.no_grad()
def encode(text, tokenizer, sentences):
    """Unit text features (n, d) of n sentences, which the tokenizer pads to one length as it did in training."""
    ids = torch.tensor([line.ids for line in tokenizer.encode_batch(sentences)])
    return F.normalize(text(ids.to(next(text.parameters()).device)), dim=1)


def correct(images, texts, truth):
    """Whether each unit image row (N, d) is nearest to the text row (classes, d) of its true class: bool (N,)."""
    return (images @ texts.T).argmax(1) == truth


def notes(report, rows, options):
    yield "Zero-shot: no label but the class's name in a prompt, chosen on val."


def panel(report, rows, options):
    """Val accuracy under each prompt and test accuracy of the chosen one, of each run's first seed."""
    seeds = [(row, next(iter(row.results["zero_shot"]["seeds"].values()))) for row in rows]
    return report.Panel(
        "prompts", "The wording of the prompt",
        "Classes named in words, without any label: the same encoder under each prompt, and under the mean of all. "
        "Green: chosen for the test.",
        short="Prompts", sentences=[sentence(row, result) for row, result in seeds], figure=figure(report, seeds))


def sentence(row, result):
    worst, best = min(result["prompts"].values()), max(result["prompts"].values())
    return (f"{row.title}, “{result['prompt']}”: {result['accuracy']:.1f} % on test [{result['low']:.1f}, "
            f"{result['high']:.1f}], {'above' if result['low'] > result['chance'] else 'not above'} chance, which is "
            f"{result['chance']:.1f} %. On val the wording moves it from {worst:.1f} to {best:.1f} %.")


def figure(report, seeds):
    drawing, axes = report.pyplot().subplots(1, len(seeds), figsize=(7.5 * len(seeds), 3), squeeze=False)
    for axis, (row, result) in zip(axes[0], seeds):
        shown = sorted(result["prompts"].items(), key=lambda item: item[1])
        shown.append(("all together", result["ensemble"]["val_accuracy"]))
        for y, (prompt, found) in enumerate(shown):
            axis.plot(found, y, "o", color=report.GOOD if prompt == result["prompt"] else report.ACCENT)
            axis.annotate(f"{found:.1f}", (found, y), (7, -3), textcoords="offset points", fontsize=8)
        axis.axvline(result["chance"], color=report.BAD, linestyle=(0, (2, 2)), linewidth=1)
        axis.annotate("chance", (result["chance"], 0), (4, -3), textcoords="offset points", color=report.BAD, fontsize=8)
        axis.set_yticks(range(len(shown)), [prompt for prompt, _ in shown])
        axis.set_title(f"{row.title}: accuracy on val by prompt, %")
        axis.set_xlim(left=0)
    drawing.tight_layout()
    return report.svg(drawing)
