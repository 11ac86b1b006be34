"""Which server takes a request: the least busy that works."""

from collections import Counter
from collections.abc import Sequence
from uuid import UUID

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
)

from s3edge_inference.servers import (
    FAILURES_TO_REST,
    PATIENCE_S,
    REST_S,
    USERS_TO_REST,
    Lease,
    ServerPool,
    State,
    Verdict,
)


ALICE, BOB, CAROL, DAVE = USERS = [UUID(int=number) for number in range(1, 5)]


def taken(pool: ServerPool, now: float = 0.0, user: UUID = ALICE) -> Lease:
    """Take a place that there must be."""
    lease = pool.take(user, now)
    assert lease is not None
    return lease


def rested(pool: ServerPool, now: float = 0.0) -> None:
    """Let the only server of a pool fail until it is rested."""
    for _ in range(FAILURES_TO_REST):
        pool.give_back(taken(pool, now), Verdict.FAILED, now)


def test_requests_go_to_the_least_busy() -> None:
    """Equals take turns; who answered has room again."""
    pool = ServerPool(3)
    leases = [taken(pool) for _ in range(6)]
    assert [lease.server for lease in leases] == [0, 1, 2, 0, 1, 2]
    pool.give_back(leases[4], Verdict.WELL, 0)
    assert taken(pool).server == 1
    assert list(pool.in_flight()) == [2, 2, 2]


def test_equals_take_turns_also_one_by_one() -> None:
    """A gateway with one task at a time uses all servers."""
    pool = ServerPool(3)
    servers = []
    for _ in range(6):
        lease = taken(pool)
        servers.append(lease.server)
        pool.give_back(lease, Verdict.WELL, 0)
    assert servers == [0, 1, 2, 0, 1, 2]


def test_three_failures_in_a_row_rest_a_server() -> None:
    """Two do not, nor three with an answer between them."""
    pool = ServerPool(1)
    for verdict in (
        Verdict.FAILED,
        Verdict.FAILED,
        Verdict.WELL,
        Verdict.FAILED,
        Verdict.UNKNOWN,
        Verdict.FAILED,
        Verdict.BUSY,
    ):
        pool.give_back(taken(pool), verdict, 0)
    assert list(pool.states(0)) == [State.CLOSED]
    rested(pool)
    assert list(pool.states(0)) == [State.RESTING]
    assert pool.take(ALICE, REST_S - 0.1) is None
    assert pool.wait_s(1) == REST_S - 1


def test_after_the_rest_one_request_tries_it() -> None:
    """It alone, until it has its answer; then all."""
    pool = ServerPool(1)
    rested(pool)
    trial = taken(pool, REST_S)
    assert trial.is_trial
    assert list(pool.states(REST_S)) == [State.DUE]
    assert pool.take(ALICE, REST_S) is None
    pool.give_back(trial, Verdict.WELL, REST_S)
    assert not any(taken(pool, REST_S).is_trial for _ in range(10))


def test_a_trial_that_fails_rests_it_again() -> None:
    """One failure is enough then."""
    pool = ServerPool(1)
    rested(pool)
    pool.give_back(taken(pool, REST_S), Verdict.FAILED, REST_S)
    assert pool.take(ALICE, 2 * REST_S - 0.1) is None
    assert taken(pool, 2 * REST_S).is_trial


def test_a_trial_that_is_given_up_makes_room_for_another() -> None:
    """A task that is cancelled says nothing of the server, and does not block it."""
    pool = ServerPool(1)
    rested(pool)
    pool.give_back(taken(pool, REST_S), Verdict.UNKNOWN, REST_S)
    assert taken(pool, REST_S).is_trial


def test_a_slow_trial_does_not_keep_the_others_out() -> None:
    """A server known to answer gets them after a second; the next failure rests it at once."""
    pool = ServerPool(1)
    rested(pool)
    trial = taken(pool, REST_S)
    assert pool.take(ALICE, REST_S + PATIENCE_S) is None
    pool.admit(trial, REST_S + PATIENCE_S)
    assert pool.take(ALICE, REST_S + PATIENCE_S) is None
    late = REST_S + 2 * PATIENCE_S
    other = taken(pool, late)
    assert not other.is_trial
    pool.give_back(trial, Verdict.FAILED, late)
    assert list(pool.states(late)) == [State.RESTING]
    pool.give_back(other, Verdict.FAILED, late)
    assert pool.wait_s(late) == REST_S


def test_a_slow_trial_that_fails_after_others_went_well_is_one_failure() -> None:
    """The server has proved meanwhile that it works."""
    pool = ServerPool(1)
    rested(pool)
    trial = taken(pool, REST_S)
    pool.admit(trial, REST_S)
    late = REST_S + PATIENCE_S
    pool.give_back(taken(pool, late), Verdict.WELL, late)
    pool.give_back(trial, Verdict.FAILED, late)
    assert list(pool.states(late)) == [State.CLOSED]


def test_requests_from_before_the_rest_say_nothing_of_now() -> None:
    """What times out late does not rest a server that is back; what is answered late brings it back."""
    pool = ServerPool(1)
    old = [taken(pool) for _ in range(FAILURES_TO_REST + 1)]
    rested(pool)
    pool.give_back(old.pop(), Verdict.WELL, 1)
    assert list(pool.states(1)) == [State.CLOSED]
    for lease in old:
        pool.give_back(lease, Verdict.FAILED, 2)
    assert list(pool.states(2)) == [State.CLOSED]


def test_a_server_that_fails_fast_does_not_draw_requests() -> None:
    """It would always be the least busy; it comes last for a while, and for no longer."""
    for verdict in (Verdict.FAILED, Verdict.BUSY):
        pool = ServerPool(2)
        first = taken(pool)
        pool.give_back(first, verdict, 0)
        assert [taken(pool, 1).server for _ in range(5)] == [1] * 5
        assert taken(pool, REST_S).server == 0


def test_a_busy_server_is_asked_when_there_is_no_other() -> None:
    """Its queue may have moved on."""
    pool = ServerPool(1)
    for _ in range(10):
        pool.give_back(taken(pool), Verdict.BUSY, 0)
    assert taken(pool).server == 0


def test_a_rested_server_is_tried_while_another_serves() -> None:
    """It would never come back otherwise."""
    pool = ServerPool(2)
    failing = [taken(pool) for _ in range(2 * FAILURES_TO_REST)]
    for lease in failing:
        pool.give_back(lease, Verdict.WELL if lease.server else Verdict.FAILED, 0)
    assert list(pool.states(0)) == [State.RESTING, State.CLOSED]
    assert [taken(pool, 1).server for _ in range(5)] == [1] * 5
    trial = taken(pool, REST_S)
    assert (trial.server, trial.is_trial) == (0, True)
    assert taken(pool, REST_S).server == 1


def doubted(pool: ServerPool, users: Sequence[UUID], now: float = 0.0) -> None:
    """Let each of these users have a doubt about the server that they are given."""
    for user in users:
        pool.give_back(taken(pool, now, user), Verdict.DOUBTED, now)


def test_one_users_doubts_rest_no_server() -> None:
    """However many they are, nor those of two; others are served as if there were none."""
    pool = ServerPool(1)
    doubted(pool, [ALICE] * 100 + [BOB] * 100)
    assert list(pool.states(0)) == [State.CLOSED]
    assert not taken(pool, 0, CAROL).is_trial


def test_doubts_of_several_users_rest_a_server() -> None:
    """With no answer between them; it is broken for everybody then, images or not."""
    pool = ServerPool(1)
    doubted(pool, [ALICE, BOB])
    pool.give_back(taken(pool), Verdict.WELL, 0)
    doubted(pool, [BOB, CAROL])
    assert list(pool.states(0)) == [State.CLOSED]
    doubted(pool, [ALICE])
    assert list(pool.states(0)) == [State.RESTING]


def test_doubts_and_failures_are_counted_apart() -> None:
    """Neither the failures nor the doubts are enough."""
    pool = ServerPool(1)
    for _ in range(FAILURES_TO_REST - 1):
        pool.give_back(taken(pool), Verdict.FAILED, 0)
    doubted(pool, [ALICE, BOB])
    assert list(pool.states(0)) == [State.CLOSED]


def test_a_doubted_server_comes_last_for_that_user_alone() -> None:
    """Their next request may fare better elsewhere, and nobody else's work is moved."""
    pool = ServerPool(2)
    first = taken(pool)
    pool.give_back(first, Verdict.DOUBTED, 0)
    assert [taken(pool, 1).server for _ in range(4)] == [1 - first.server] * 4
    assert [taken(pool, 1, BOB).server for _ in range(3)] == [first.server] * 3
    assert taken(pool, REST_S, ALICE).server == first.server


def test_a_doubted_trial_leaves_the_next_to_somebody_else() -> None:
    """One user's images do not rest it again, and it takes other users' to bring it back."""
    pool = ServerPool(1)
    rested(pool)
    pool.give_back(taken(pool, REST_S, ALICE), Verdict.DOUBTED, REST_S)
    assert pool.take(ALICE, REST_S) is None
    trial = taken(pool, REST_S, BOB)
    assert trial.is_trial
    pool.give_back(trial, Verdict.WELL, REST_S)
    assert not taken(pool, REST_S, ALICE).is_trial


def test_a_broken_server_rests_again_after_doubted_trials() -> None:
    """Each costs another user one task; the rest of their work goes to another server meanwhile."""
    pool = ServerPool(2)
    doubts = 0
    while State.RESTING not in pool.states(0):
        lease = taken(pool, 0, USERS[doubts % USERS_TO_REST])
        doubts += lease.server == 0
        pool.give_back(lease, Verdict.DOUBTED if lease.server == 0 else Verdict.WELL, 0)
    assert doubts == USERS_TO_REST
    served = Counter(_served(pool, user, REST_S) for user in [ALICE] * 10 + [BOB] * 10)
    assert served == {0: 2, 1: 18}
    assert _served(pool, CAROL, REST_S) == 0
    assert list(pool.states(REST_S)) == [State.RESTING, State.CLOSED]


def _served(pool: ServerPool, user: UUID, now: float) -> int:
    """Have a request served by a pool whose first server is broken; return by which."""
    lease = taken(pool, now, user)
    pool.give_back(lease, Verdict.WELL if lease.server else Verdict.DOUBTED, now)
    return lease.server


class Pool(RuleBasedStateMachine):
    """Random histories of requests, answers and time."""

    leases: Bundle[Lease] = Bundle("leases")

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.pool = ServerPool(1)
        self.out: list[Lease] = []
        self.failures: list[int] = [0]
        self.rested_at: list[float | None] = [None]
        self.trials: dict[int, Lease] = {}
        self.only_well = True

    @initialize(servers=st.integers(1, 4))
    def begin(self, servers: int) -> None:
        """Begin with so many servers, none of which has done anything."""
        self.pool = ServerPool(servers)
        self.failures = [0] * servers
        self.rested_at = [None] * servers

    @rule(seconds=st.sampled_from([0.1, PATIENCE_S, REST_S - 0.1, REST_S]))
    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds

    @rule(target=leases, user=st.sampled_from(USERS))
    def take(self, user: UUID) -> Lease | MultipleResults[Lease]:
        """A request gets a server that does not rest, or hears that there is none."""
        busy = self.pool.in_flight()
        lease = self.pool.take(user, self.now)
        if lease is None:
            assert None not in self.rested_at
            return multiple()
        at = self.rested_at[lease.server]
        assert at is None or self.now >= at + REST_S
        if lease.is_trial:
            assert at is not None
            assert lease.server not in self.trials
            self.trials[lease.server] = lease
        if self.only_well:
            assert busy[lease.server] == min(busy)
        self.out.append(lease)
        return lease

    @rule(lease=leases)
    def admit(self, lease: Lease) -> None:
        """The server of a trial answers the small question."""
        if lease.is_trial and lease.admitted_at is None:
            self.pool.admit(lease, self.now)

    @rule(lease=consumes(leases), verdict=st.sampled_from(Verdict))
    def give_back(self, lease: Lease, verdict: Verdict) -> None:
        """A request ends; a server that just answered takes requests."""
        self.out.remove(lease)
        self.pool.give_back(lease, verdict, self.now)
        self.only_well = self.only_well and verdict is Verdict.WELL
        server, state = lease.server, self.pool.states(self.now)[lease.server]
        if self.trials.get(server) is lease:
            del self.trials[server]
        if verdict in (Verdict.WELL, Verdict.BUSY):
            assert state is State.CLOSED
            self.rested_at[server] = None
            self.trials.pop(server, None)
        if verdict in (Verdict.FAILED, Verdict.DOUBTED):
            self.failures[server] += 1
            began = self.rested_at[server]
            if state is State.RESTING and (began is None or self.now >= began + REST_S):
                self.rested_at[server] = self.now
                self.trials.pop(server, None)

    @invariant()
    def places_are_counted(self) -> None:
        """Each server has as many requests as were given and not given back."""
        counts = Counter(lease.server for lease in self.out)
        assert list(self.pool.in_flight()) == [counts[i] for i in range(len(self.failures))]

    @invariant()
    def a_rest_is_short(self) -> None:
        """No server is kept from its trial for longer."""
        assert 0 <= self.pool.wait_s(self.now) <= REST_S

    @invariant()
    def it_takes_failures_to_be_rested(self) -> None:
        """One server's failures rest no other, and too few rest none."""
        states = self.pool.states(self.now)
        for state, failures in zip(states, self.failures, strict=True):
            assert state is State.CLOSED or failures >= FAILURES_TO_REST


TestPool = Pool.TestCase
TestPool.settings = settings(max_examples=100, stateful_step_count=40)
