"""The updates of one account: everything the service needs of them."""

from collections.abc import Callable

from fivetran_state.history.store import HistoryStore
from fivetran_state.pages import Pages
from fivetran_state.updates.follow import Followers
from fivetran_state.updates.groups import Groups
from fivetran_state.updates.keys import Keys
from fivetran_state.updates.listings import Listings
from fivetran_state.updates.marks import Marks
from fivetran_state.updates.members import Members
from fivetran_state.updates.notices import Notices
from fivetran_state.updates.proposal import Approvers, ProposalWorkflow
from fivetran_state.updates.proposals import Proposals
from fivetran_state.updates.reader import Reader
from fivetran_state.updates.retention import Retention
from fivetran_state.updates.runtime import Runtime
from fivetran_state.updates.start import Starter
from fivetran_state.updates.unfinished import UnfinishedUpdates
from fivetran_state.updates.workflow import UpdateWorkflow
from fivetran_state.vault import Texts


class Updates:
    """One per process, made before DBOS is launched: it registers the workflows."""

    def __init__(
        self,
        runtime: Runtime,
        reader: Reader,
        marks: Marks,
        history: HistoryStore,
        texts: Texts,
        digest: Callable[[str], str],
        approvers: Approvers,
        notices: Notices,
        pages: Pages,
    ) -> None:
        self.runtime = runtime
        self.texts = texts
        self.store = runtime.store
        self.keys = Keys(runtime.application)
        self.workflow = UpdateWorkflow(runtime, self.keys)
        self.starter = Starter(self.store, self.keys, self.workflow, texts, digest)
        self.listings = Listings(reader, self.store, texts)
        self.groups = Groups(runtime, self.starter, self.listings, digest)
        members = Members(self.starter, self.store)
        proposal = ProposalWorkflow(reader, members, self.groups, approvers, runtime.events)
        self.notices = notices
        self.proposals = Proposals(
            reader,
            texts,
            digest,
            runtime.application,
            proposal,
            approvers,
            notices,
            pages,
            runtime.events,
        )
        self.followers = Followers(self.store, runtime.running)
        self.unfinished = UnfinishedUpdates(reader, self.store)
        self.retention = Retention(reader, marks, self.store, self.listings, history)
        self.history = history
