"""ω in plain float64, feature by feature, from the stored residuals."""

import numpy as np
from scipy import stats

from precompute.store.making.unfinished import Collected
from precompute.store.schema import IMAGE, TEXT

K = 16


def unit(v: np.ndarray) -> np.ndarray:
    return v / np.linalg.norm(v)


class Reference:
    """All of D_s in plain lists."""

    def __init__(self, data: Collected) -> None:
        bits = np.asarray(data.resid)
        self.h = np.array(
            [[float(np.array([int(b) << 16], np.uint32).view(np.float32)[0]) for b in row] for row in bits]
        )
        self.row, self.pos = data.resid_row.tolist(), data.resid_pos.tolist()
        e = data.events
        self.kind = [int(e.token_modality[e.sample_token[r] + p]) for r, p in zip(self.row, self.pos, strict=True)]
        self.z: list[dict[int, float]] = []
        for r, p in zip(self.row, self.pos, strict=True):
            t = int(e.sample_token[r]) + p
            low, high = int(e.token_event[t]), int(e.token_event[t + 1])
            self.z.append({int(e.event_feature[i]): float(e.event_value[i]) * data.unit for i in range(low, high)})
        self.mu = {
            m: np.mean([h for h, k in zip(self.h, self.kind, strict=True) if k == m], axis=0) for m in (TEXT, IMAGE)
        }
        self.unit_raw: dict[tuple[int, int], np.ndarray] = {}
        self.unit_centred: dict[tuple[int, int], np.ndarray] = {}
        for r in set(self.row):
            for m in (TEXT, IMAGE):
                at = [i for i in range(len(self.row)) if self.row[i] == r and self.kind[i] == m]
                if at:
                    self.unit_raw[r, m] = np.mean([unit(self.h[i]) for i in at], axis=0)
                    self.unit_centred[r, m] = np.mean([unit(self.h[i] - self.mu[m]) for i in at], axis=0)

    def firing(self, k: int, delta: float, modality: int, *, once: bool) -> list[int]:
        result = [i for i in range(len(self.row)) if self.kind[i] == modality and self.z[i].get(k, 0.0) > delta]
        result.sort(key=lambda i: (-self.z[i][k], self.row[i], self.pos[i]))
        if not once:
            return result
        rows: set[int] = set()
        return [i for i in result if not (self.row[i] in rows or rows.add(self.row[i]))]  # type: ignore[func-returns-value]

    def paired(self, k: int, delta: float, d_k: np.ndarray, draws: np.ndarray) -> dict[str, float] | None:
        sides = {m: self.firing(k, delta, m, once=True) for m in (TEXT, IMAGE)}
        if min(map(len, sides.values())) < K:
            return None
        cos, base, cos_centred, cos_alone, base_centred = [], [], [], [], []
        for a, b in zip(sides[TEXT][:K], sides[IMAGE][:K], strict=True):
            cos.append(unit(self.h[a]) @ unit(self.h[b]))
            base.append(self.unit_raw[self.row[a], TEXT] @ self.unit_raw[self.row[b], IMAGE])
            base_centred.append(self.unit_centred[self.row[a], TEXT] @ self.unit_centred[self.row[b], IMAGE])
            x, y = self.h[a] - self.mu[TEXT], self.h[b] - self.mu[IMAGE]
            cos_centred.append(unit(x) @ unit(y))
            cos_alone.append(unit(x - self.z[a][k] * d_k) @ unit(y - self.z[b][k] * d_k))
        lift = np.array(cos) - base
        means = [np.mean([lift[i] for i in draw]) for draw in draws]
        difference = np.array(cos_alone) - base_centred
        t = difference.mean() / (difference.std(ddof=1) / np.sqrt(K))
        return {
            "omega": np.mean(cos), "omega_baseline": np.mean(base), "omega_centred": np.mean(cos_centred),
            "omega_without_self": np.mean(cos_alone), "lift": lift.mean(), "lift_low": np.percentile(means, 2.5),
            "lift_high": np.percentile(means, 97.5), "lift_without_self": difference.mean(),
            "p_value": stats.t.sf(t, K - 1),
        }  # fmt: skip
