"""One step of training: gradients over micro-batches, one update, nothing where a number is not finite."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from judgelm_jax.devices import sharding
from judgelm_jax.errors import InputError
from judgelm_jax.model import gradient_sums, lora, parameters
from judgelm_jax.model.config import ModelConfig
from judgelm_jax.model.placement import Placement
from judgelm_jax.training.loss import Batch, total_loss
from judgelm_jax.training.throughput import twice_seen
from judgelm_jax.training_config import LoraConfig, TrainConfig

# {"params": float32 masters of what is trained, "optimizer": optax's state, and int32 counts of steps: "updates", "skipped",
# "skipped_in_a_row"}
State = dict[str, Any]
Metrics = dict[str, jax.Array]

_COUNTS = ("updates", "skipped", "skipped_in_a_row")


@dataclasses.dataclass(frozen=True)
class Program:
    """What a step computes, without the values: all that is static."""

    model: ModelConfig
    placement: Placement
    optimizer: optax.GradientTransformation
    schedule: optax.Schedule
    dtype: str
    packed: bool
    accumulation: int
    loss_chunk: int
    lora: LoraConfig | None

    def compute_params(self, trained: Any, frozen: Any) -> parameters.Params:
        """The parameters that compute: the masters in the dtype of the computation, or adapters on the frozen model."""
        if self.lora is not None:
            return lora.attach(frozen, trained, self.lora)
        return jax.tree.map(lambda x: x.astype(self.dtype), trained)

    @property
    def sums_in_place(self) -> bool:
        """Whether gradients are added up layer by layer, which needs nothing kept inside of a layer; adapters are small."""
        return self.lora is None and self.placement.remat == "full" and len(set(self.model.pattern)) == 1

    def learning_params(self, masters: Any, sums: Any) -> parameters.Params:
        """The parameters that compute, whose gradient with respect to `sums` is the sums with that of this pass added."""
        mesh, axes = self.placement.mesh, parameters.param_axes(self.model)
        of_layer = jax.tree.map(lambda names: names[1:], axes["layers"], is_leaf=_is_axes)

        def cast(axes: Any, weights: Any) -> Any:
            return place(axes, jax.tree.map(lambda x: x.astype(self.dtype), weights))

        def place(axes: Any, tree: Any) -> Any:
            return jax.tree.map(lambda x, names: sharding.constrain(x, mesh, names), tree, axes)

        params = {
            name: gradient_sums.tapped(
                functools.partial(cast, axes[name]), functools.partial(place, axes[name]), master, sums[name]
            )
            for name, master in masters.items()
            if name != "layers"
        }
        layers = gradient_sums.Summed(
            masters["layers"], sums["layers"], functools.partial(cast, of_layer), functools.partial(place, of_layer)
        )
        return {**params, "layers": layers}


def accumulation_of(config: TrainConfig, mesh: Mesh) -> int:
    """Micro-batches of one step.

    Raises:
      InputError: the batch does not divide over the devices, or a device's part into micro-batches.
    """
    batch, micro = config.training.batch, config.training.micro_batch
    devices = mesh.shape["data"] * mesh.shape["fsdp"]
    if batch % devices:
        raise InputError(
            f"--config.training.batch={batch}: does not divide over the {devices} devices along data and fsdp; choose a "
            "multiple"
        )
    own = batch // devices
    if micro and own % micro:
        raise InputError(f"--config.training.micro_batch={micro}: does not divide the {own} rows of a device; choose a divisor")
    return own // micro if micro else 1


def _is_axes(x: Any) -> bool:
    return isinstance(x, tuple)


def init_state(trained: Any, optimizer: optax.GradientTransformation) -> State:
    """The state before the first step; moments are float32 as the masters are. For `jax.jit` or `jax.eval_shape`."""
    return {"params": trained, "optimizer": optimizer.init(trained)} | {name: jnp.int32(0) for name in _COUNTS}


def state_shardings(trained: Any, shardings: Any, optimizer: optax.GradientTransformation, mesh: Mesh) -> State:
    """Where the state lies: moments as their parameters, everything else on every device.

    Args:
      trained: what is trained, abstract or not.
      shardings: of each leaf of `trained`.
    """
    everywhere = NamedSharding(mesh, PartitionSpec())
    abstract = jax.eval_shape(lambda x: optimizer.init(x), trained)
    moments = optax.tree_utils.tree_map_params(
        optimizer, lambda _, own: own, abstract, shardings, transform_non_params=lambda _: everywhere
    )
    return {"params": shardings, "optimizer": moments} | dict.fromkeys(_COUNTS, everywhere)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows are split over `data` and `fsdp`."""
    return sharding.sharding(mesh, ("batch", "sequence"))


def make_step(program: Program) -> Callable[[State, Any, Batch], tuple[State, Metrics]]:
    """(state, frozen parameters or None, batch of the whole step) → (state, metrics), to be jitted with the state donated.

    The gradient is that of Σ nll / Σ targets over the whole batch, whatever the number of micro-batches and devices.
    A step whose loss or gradient is not finite leaves parameters and moments as they were and is counted.

    Metrics are scalars: `loss` in nats a target; of the batch the number of `targets`, of `tokens` in documents and the sum of
    the squared lengths of documents (`squares`); `gradient_norm` before clipping, `learning_rate`, `skipped`,
    `skipped_in_a_row`.
    """
    mesh = program.placement.mesh

    def loss_of(params: parameters.Params, batch: Batch) -> jax.Array:
        return total_loss(params, program.model, batch, program.placement, program.packed, program.loss_chunk)

    def add(sums: tuple[jax.Array, Any], trained: Any, frozen: Any, batch: Batch) -> tuple[jax.Array, Any]:
        """The sums of loss and gradient with those of this batch added."""
        total, gradient = sums
        if program.sums_in_place:
            own, gradient = jax.value_and_grad(lambda sums: loss_of(program.learning_params(trained, sums), batch))(gradient)
            return total + own, gradient
        own, more = jax.value_and_grad(lambda trained: loss_of(program.compute_params(trained, frozen), batch))(trained)
        return total + own, jax.tree.map(jnp.add, gradient, more)

    def zeros_like(trained: Any) -> Any:
        if not program.sums_in_place:
            return jax.tree.map(jnp.zeros_like, trained)
        axes = parameters.param_axes(program.model)
        return jax.tree.map(lambda x, names: sharding.constrain(jnp.zeros_like(x), mesh, names), trained, axes)

    def micro_batches(x: jax.Array) -> jax.Array:
        """[accumulation, rows, S] of x [B, S]; every device keeps its own rows."""
        x = x.reshape(x.shape[0] // program.accumulation, program.accumulation, *x.shape[1:]).swapaxes(0, 1)
        return sharding.constrain(x, mesh, (None, "batch", "sequence"))

    def step(state: State, frozen: Any, batch: Batch) -> tuple[State, Metrics]:
        trained = state["params"]
        zeros = (jnp.float32(0), zeros_like(trained))
        if program.accumulation == 1:
            total, gradient = add(zeros, trained, frozen, batch)
        else:
            micro = Batch(*map(micro_batches, batch))
            (total, gradient), _ = jax.lax.scan(lambda sums, own: (add(sums, trained, frozen, own), None), zeros, micro)
        targets = jnp.maximum(batch.target_mask.sum(), 1)
        gradient = jax.tree.map(lambda g: g / targets, gradient)
        norm = optax.tree.norm(gradient)
        updates, moments = program.optimizer.update(gradient, state["optimizer"], trained)
        # With these the update is finite, too: Adam divides by no less than ε ≥ 1e-30, and clipping bounds what it divides.
        finite = jnp.isfinite(total) & jnp.isfinite(norm)
        updated = {"params": optax.apply_updates(trained, updates), "optimizer": moments}
        kept = {name: state[name] for name in updated}
        new: State = jax.tree.map(lambda new, old: jnp.where(finite, new, old), updated, kept)
        new["updates"] = state["updates"] + finite
        new["skipped"] = state["skipped"] + ~finite
        new["skipped_in_a_row"] = jnp.where(finite, 0, state["skipped_in_a_row"] + 1)
        seen = twice_seen(program.model, batch.positions)
        metrics = {
            "loss": total / targets,
            "targets": targets,
            "tokens": jnp.sum(batch.segments > 0, dtype=jnp.float32),
            "squares": jnp.sum(jnp.where(batch.segments > 0, seen, 0), dtype=jnp.float32),
            "gradient_norm": norm,
            "learning_rate": program.schedule(state["updates"]),
            "skipped": new["skipped"],
            "skipped_in_a_row": new["skipped_in_a_row"],
        }
        return new, metrics

    return step
