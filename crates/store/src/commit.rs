//! The commit hook: a read model is called with what its batch did, after each commit that this process makes.

use std::any::Any;
use std::fmt::Debug;
use std::sync::Arc;

use carbon_core::Positions;

/// What a read model keeps in memory about the commits to one open namespace. Clones of the namespace share one value.
pub trait CommitHook: Debug + Default + Send + Sync + 'static {
    /// What the fold reports about a transaction, by [`Folded::with_effects`](crate::Folded::with_effects).
    type Effects: Default + Send + 'static;

    /// Called after a transaction is committed. `range` is `None` if it did not move the checkpoint.
    fn committed(&self, range: Option<CommittedRange<'_>>, effects: Self::Effects);

    /// Called after all rows and the checkpoint were deleted.
    fn cleared(&self);
}

/// How a committed batch moved the checkpoint: in each partition of `upto`, from its position in `from`.
#[derive(Clone, Copy, Debug)]
pub struct CommittedRange<'c> {
    pub from: &'c Positions,
    pub upto: &'c Positions,
}

/// The hook of a read model that needs none.
impl CommitHook for () {
    type Effects = ();

    fn committed(&self, _: Option<CommittedRange<'_>>, (): ()) {}

    fn cleared(&self) {}
}

/// The effects of a transaction, of any hook.
pub(crate) type AnyEffects = Box<dyn Any + Send>;

/// A [`CommitHook`] of any type.
trait AnyHook: Any + Debug + Send + Sync {
    fn committed(&self, range: Option<CommittedRange<'_>>, effects: Option<AnyEffects>);
    fn cleared(&self);
}

impl<H: CommitHook> AnyHook for H {
    fn committed(&self, range: Option<CommittedRange<'_>>, effects: Option<AnyEffects>) {
        let effects = effects.and_then(|effects| effects.downcast().ok());
        CommitHook::committed(self, range, effects.map_or_else(H::Effects::default, |effects| *effects));
    }

    fn cleared(&self) {
        CommitHook::cleared(self);
    }
}

/// The hook of an open namespace.
#[derive(Clone, Debug)]
pub struct Hook(Arc<dyn AnyHook>);

impl Hook {
    pub(crate) fn new<H: CommitHook>() -> Self {
        Self(Arc::new(H::default()))
    }

    pub(crate) fn get<H: CommitHook>(&self) -> Option<&H> {
        let hook: &dyn Any = &*self.0;
        hook.downcast_ref()
    }

    pub(crate) fn committed(&self, range: Option<CommittedRange<'_>>, effects: Option<AnyEffects>) {
        self.0.committed(range, effects);
    }

    pub(crate) fn cleared(&self) {
        self.0.cleared();
    }
}
