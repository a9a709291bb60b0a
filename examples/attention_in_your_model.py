"""Trains a small decoder of your own with bc2's attention on packed documents. Needs bc2-model.

python examples/attention_in_your_model.py
"""

import torch
from torch import Tensor, nn

from bc2_model.kernels import alibi_slopes, attention

HEADS, HEAD_DIM, VOCABULARY = 10, 16, 64


class Decoder(nn.Module):
    """One layer of attention between an embedding and a projection."""

    def __init__(self) -> None:
        super().__init__()
        width = HEADS * HEAD_DIM
        self.embedding = nn.Embedding(VOCABULARY, width)
        self.projection = nn.Linear(width, 3 * width)
        self.head = nn.Linear(width, VOCABULARY)
        self.register_buffer("slopes", alibi_slopes(HEADS))

    def forward(self, tokens: Tensor, segment_ids: Tensor) -> Tensor:
        """Returns logits (batch, seq, vocabulary) of tokens (batch, seq)."""
        qkv = self.projection(self.embedding(tokens)).unflatten(-1, (3, HEADS, HEAD_DIM))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (batch, heads, seq, head_dim)
        out = attention(q, k, v, alibi_slopes=self.slopes, segment_ids=segment_ids)
        return self.head(out.transpose(1, 2).flatten(2))


def main() -> None:
    """Prints a loss that falls: each document repeats a token that differs from row to row."""
    torch.manual_seed(0)
    model = Decoder()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    # Two documents in each row; attention crosses no border.
    segment_ids = torch.tensor([1] * 40 + [2] * 24).expand(8, -1)
    for step in range(1, 61):
        tokens = torch.randint(VOCABULARY, (8, 2)).gather(1, segment_ids - 1)
        logits = model(tokens, segment_ids)
        inside = segment_ids[:, 1:] == segment_ids[:, :-1]
        loss = nn.functional.cross_entropy(logits[:, :-1][inside], tokens[:, 1:][inside])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 20 == 0 or step == 1:
            print(f"step {step}: loss {loss:.3f}")


if __name__ == "__main__":
    main()
