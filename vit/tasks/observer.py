"""What watches a test batch by batch."""

from abc import ABC, abstractmethod
from typing import Any

import lightning as L
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from vit.data.source import Batch


class Observer(L.Callback, ABC):
    """Sees each batch of a test with its logits."""

    @abstractmethod
    def see(self, batch: Batch, logits: Float[Tensor, "b k"]) -> None: ...

    @override
    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self.see(batch, outputs)
