"""The front of true accuracies: how likely each trial is a member, and what one more training would change of that.

N trials, G architectures, C costs, K of the trials or architectures near the front, S draws of all true accuracies.
"""

from typing import NamedTuple

import moocore
import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from nas.session.certainty.noise import Floats, Ints, Posterior

MOST_RIVALS = 128  # that each trial meets in the draws where they are met one by one
_RIVALS_AT_ONCE = 16  # the first ones leave few draws to look at
_FAR = 4.0  # standard deviations behind a cheaper trial at which membership is out of the question
_MOST_SORTED = 2  # costs by which a tree finds the highest of all rivals
_MOST_NEAR = 2048  # trials whose membership is drawn
MOST_CANDIDATES = 512  # architectures that one more training is considered of


class Drawn(NamedTuple):
    """Who is on the front in each draw of all true accuracies, of the K trials that may be."""

    posterior: Posterior
    costs_NC: Floats
    group_N: Ints
    near: Ints  # these trials, the most accurate first
    behind_N: Floats  # standard deviations by which the strongest rival is ahead; -inf without one
    noise_KS: NDArray[np.float32]  # of the true accuracies of the trials near
    is_member_KS: NDArray[np.bool_]

    def membership(self) -> Floats:
        """The probability that each of N trials is on the front, of shape (N,).

        For those that were not drawn it is the bound that their strongest rival sets.
        """
        p_N: Floats = ndtr(-self.behind_N)
        p_N[self.near] = self.is_member_KS.mean(axis=1)
        return p_N

    def expected_changes(self, num_pending_N: Ints) -> Floats:
        """What one more training of each of N architectures is expected to change of the front, of shape (N,).

        With p_i the probability that architecture i is a member, it is the expected sum over i of (p_i' - p_i)², where
        p_i' is what p_i becomes. By the law of total variance that is what is expected to be taken from the sum of
        p_i (1 - p_i). Membership is approximated as a linear function of what the training shows: with z_g the true
        logit of g in its standard deviations, and r_g² the part of its variance that the training takes away,

            E (p_i' - p_i)² = r_g² Cov(member_i, z_g)²

        so what pending trainings take away of a variance counts once. Who is not near changes nothing.

        Args:
            num_pending_N: Trainings of each architecture that are under way, whose results are not known yet; there is
                one trial of each.
        """
        near, posterior = self.near, self.posterior
        costs_KC, pending_K, groups_K = self.costs_NC[near], num_pending_N[near], self.group_N[near]
        new_HK = posterior.explained(groups_K, pending_K + 1) - posterior.explained(groups_K, pending_K)
        num_draws = self.noise_KS.shape[1]
        root_KS = np.tile(np.sqrt(new_HK.T), (1, num_draws // len(new_HK))).astype(np.float32)
        shown_KS = root_KS * self.noise_KS
        p_K1 = self.is_member_KS.mean(axis=1, dtype=np.float32)[:, None]
        cov_KK = (self.is_member_KS - p_K1) @ shown_KS.T / num_draws  # of the membership of one with what another shows
        # What the mean of cov_KK**2 would be if memberships were independent of what is shown:
        by_chance_KK = p_K1 * (1 - p_K1) * (shown_KS**2).mean(axis=1) / num_draws
        matters_KK = (costs_KC <= costs_KC[:, None]).all(axis=2)  # whether the second costs no more
        change_N = np.zeros(len(self.costs_NC))
        change_N[near] = np.where(matters_KK, cov_KK**2 - by_chance_KK, 0.0).sum(axis=0).clip(0)
        return change_N


def membership(posterior: Posterior, costs_NC: Floats, group_N: Ints) -> Floats:
    """The probability that each of N trials is on the front of true accuracy and costs, of shape (N,).

    A trial is on it if every trial of another architecture that costs no more in anything is less accurate. Trials of
    one architecture are equally accurate, so equal ones stay together. It is drawn for the trials that are less than
    four standard deviations behind all others, at most 2,048; for the rest it is the bound that their strongest rival
    sets. Where there are more than two costs, or one architecture has several, each meets its 128 most accurate rivals.

    Args:
        costs_NC: Less is better; without error.
        group_N: The architecture of each trial.
    """
    return draw_fronts(posterior, costs_NC, group_N).membership()


def choose(drawn: Drawn, *, num_pending_G: Ints, seconds_G: Floats, is_allowed_G: NDArray[np.bool_]) -> int | None:
    """The architecture to train again: the one with the largest expected change of the front per device-second.

    Args:
        drawn: With one trial of each architecture.
        seconds_G: Device-seconds that a training of each takes.
        is_allowed_G: Which may be chosen.
    Returns:
        None where no training that is allowed would change anything.
    """
    worth_G = np.where(is_allowed_G, drawn.expected_changes(num_pending_G), 0.0) / seconds_G
    best = int(worth_G.argmax())
    return best if worth_G[best] > 0 else None


def draw_fronts(
    posterior: Posterior, costs_NC: Floats, group_N: Ints | None = None, *, most: int = _MOST_NEAR
) -> Drawn:
    """In which draws each of N trials is on the front; `membership` says what that means.

    Args:
        costs_NC: Less is better; without error.
        group_N: The architecture of each trial; None: there is one of each, in their order.
        most: Trials that are drawn, the nearest to the front.
    """
    group_N = np.arange(len(costs_NC)) if group_N is None else group_N
    mean_N, var_N = posterior.mean[group_N], posterior.sd[group_N] ** 2
    behind_N = np.full(len(group_N), -np.inf)
    for i in np.flatnonzero(moocore.is_nondominated(np.column_stack([-mean_N, costs_NC]))):
        beaten = np.logical_and.reduce([costs_N[i] <= costs_N for costs_N in costs_NC.T]) & (group_N != group_N[i])
        gap_N = (mean_N[i] - mean_N[beaten]) / np.sqrt(var_N[i] + var_N[beaten])
        behind_N[beaten] = np.maximum(behind_N[beaten], gap_N)
    near = np.flatnonzero(behind_N < _FAR)
    near = near[np.argsort(behind_N[near], kind="stable")[:most]]
    near = near[np.argsort(-mean_N[near], kind="stable")]  # the most accurate first, so that rivals are in that order
    unique, row_K = np.unique(group_N[near], return_inverse=True)
    noise_US = posterior.noise(unique)
    theta_US = posterior.draw_from(noise_US, unique)
    costs_KC = costs_NC[near]
    costs_UC = costs_KC[np.unique(row_K, return_index=True)[1]]
    if costs_KC.shape[1] <= _MOST_SORTED and (costs_KC == costs_UC[row_K]).all():
        is_member_KS = _undominated(theta_US, costs_UC)[row_K]
    else:
        is_member_KS = _above_rivals(theta_US, costs_KC, row_K, mean_N[near], var_N[near])
    return Drawn(posterior, costs_NC, group_N, near, behind_N, noise_US[row_K], is_member_KS)


def _undominated(theta_US: NDArray[np.float32], costs_UC: Floats) -> NDArray[np.bool_]:
    """The draws in which none of U architectures that costs no more is above one, of shape (U, S), by one or two costs.

    In the order of the first cost, highest values by the second one are kept in Fenwick's tree (1994).
    """
    first_U, second_U = costs_UC[:, 0], costs_UC[:, -1]
    ranks, place_U = np.unique(second_U, return_inverse=True)
    tree = np.full((len(ranks) + 1, theta_US.shape[1]), -np.inf, np.float32)
    is_member_US = np.empty(theta_US.shape, dtype=bool)
    order = np.argsort(first_U, kind="stable")
    for equal in np.split(order, np.flatnonzero(np.diff(first_U[order])) + 1):
        for u in equal.tolist():
            place = int(place_U[u]) + 1
            while place < len(tree):
                np.maximum(tree[place], theta_US[u], out=tree[place])
                place += place & -place
        for u in equal.tolist():
            place, highest_S = int(place_U[u]) + 1, theta_US[u]
            while place:
                highest_S = np.maximum(highest_S, tree[place])
                place &= place - 1
            is_member_US[u] = theta_US[u] >= highest_S
    return is_member_US


def _above_rivals(
    theta_US: NDArray[np.float32], costs_KC: Floats, row_K: Ints, mean_K: Floats, var_K: Floats
) -> NDArray[np.bool_]:
    """The draws in which each of K trials is above its strongest rivals, of shape (K, S), by any number of costs."""
    costs_CK = np.ascontiguousarray(costs_KC.T)
    is_member_KS = np.zeros((len(row_K), theta_US.shape[1]), dtype=bool)
    for k in range(len(row_K)):  # in rows that stay in the cache, not in matrices of all pairs
        no_more_K = (costs_CK <= costs_CK[:, k, None]).all(axis=0)
        is_own_K = row_K == row_K[k]
        if (costs_CK[:, no_more_K & is_own_K] < costs_CK[:, k, None]).any():
            continue  # the same architecture, measured as cheaper
        gap_K = mean_K - mean_K[k]
        may_win_K = (gap_K > 0) | (gap_K**2 < _FAR**2 * (var_K + var_K[k]))
        rivals = row_K[np.flatnonzero(no_more_K & ~is_own_K & may_win_K)[:MOST_RIVALS]]
        is_member_KS[k, _draws_above(theta_US, int(row_K[k]), rivals)] = True
    return is_member_KS


def _draws_above(theta_US: NDArray[np.float32], own: int, rivals: Ints) -> Ints:
    """The draws in which one of U architectures is above all rivals, the most accurate of which come first."""
    left = np.arange(theta_US.shape[1])
    for start in range(0, len(rivals), _RIVALS_AT_ONCE):
        highest_S = theta_US[rivals[start : start + _RIVALS_AT_ONCE]].max(axis=0)
        left = left[theta_US[own, left] > highest_S[left]]
        if not len(left):
            break
    return left
