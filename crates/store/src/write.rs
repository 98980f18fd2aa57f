//! The write transaction of a namespace: what a fold may touch (law 3), and what it leaves to the commit.

use futures::future::{BoxFuture, FutureExt as _};

use crate::checkpoint::Move;
use crate::commit::{AnyEffects, CommitHook, CommittedRange};
use crate::error::StoreError;
use crate::namespace::{Namespace, Tx};
use crate::row::Row;
use crate::sql::{Connection, Dialect, QueryBuilder};
use crate::turns::{LastTurn, run_turns};

/// The tables of a namespace inside one write transaction. Dropped, the transaction is rolled back.
pub struct Tables<'t> {
    pub(crate) tx: Tx,
    /// The move of the checkpoint that commits with the transaction.
    pub(crate) checkpoint: Option<Move>,
    pub(crate) first_rows: Option<Vec<Row>>,
    pub(crate) namespace: &'t Namespace,
}

impl<'t> Tables<'t> {
    pub fn dialect(&self) -> Dialect {
        self.namespace.dialect()
    }

    pub fn connection(&mut self) -> Connection<'_> {
        self.tx.connection()
    }

    /// Takes the rows of the statements that were given to [`Namespace::begin_at`]. `None` if none were given, and the
    /// second time.
    pub fn take_first_rows(&mut self) -> Option<Vec<Row>> {
        self.first_rows.take()
    }

    /// Runs statements one after the other and returns their rows in that order. Small statements share a turn of a
    /// file's connection.
    pub fn run<'s, I>(&'s mut self, statements: I) -> BoxFuture<'s, Result<Vec<Row>, sqlx::Error>>
    where
        I: IntoIterator<Item = QueryBuilder, IntoIter: Send + 's>,
    {
        // Boxed: the compiler cannot prove that the future is `Send` for such iterators.
        let (dialect, statements) = (self.dialect(), statements.into_iter());
        async move { Ok(run_turns(dialect, self.connection(), statements, LastTurn::Run).await?.0) }.boxed()
    }

    /// Ends the fold with statements that return no rows. The last turn of them runs with the commit. No statement can
    /// read from here on: [`Folded`] can only be committed.
    pub fn end<'s, I>(mut self, statements: I) -> BoxFuture<'s, Result<Folded<'t>, sqlx::Error>>
    where
        't: 's,
        I: IntoIterator<Item = QueryBuilder, IntoIter: Send + 's>,
    {
        let (dialect, statements) = (self.dialect(), statements.into_iter());
        async move {
            let (_, last) = run_turns(dialect, self.connection(), statements, LastTurn::Leave).await?;
            Ok(Folded { last, ..self.folded() })
        }
        .boxed()
    }

    /// Ends the fold; nothing is left to write.
    pub fn folded(self) -> Folded<'t> {
        Folded { tables: self, last: None, effects: None }
    }

    /// Commits without effects.
    pub async fn commit(self) -> Result<(), StoreError> {
        self.folded().commit().await
    }
}

/// A write transaction whose fold has ended: it can only be committed. Dropped, it is rolled back.
pub struct Folded<'t> {
    tables: Tables<'t>,
    /// The statements of the last turn, which run with the commit.
    last: Option<QueryBuilder>,
    effects: Option<AnyEffects>,
}

impl Folded<'_> {
    /// Sets what the commit hook is called with. `H` is the hook of the namespace's layout; the effects of another hook
    /// are ignored.
    #[must_use]
    pub fn with_effects<H: CommitHook>(mut self, effects: H::Effects) -> Self {
        self.effects = Some(Box::new(effects));
        self
    }

    /// Commits the rows together with the move of the checkpoint, and calls the commit hook.
    pub async fn commit(self) -> Result<(), StoreError> {
        let Self { tables: Tables { mut tx, checkpoint, namespace, .. }, last, effects } = self;
        let mut statements: Vec<QueryBuilder> = last.into_iter().collect();
        statements.extend(checkpoint.iter().flat_map(|checkpoint| checkpoint.statements(namespace.dialect())));
        if let Namespace::Postgres(schema) = namespace {
            schema.notify(&mut tx.connection()).await?;
        }
        tx.commit(statements).await?;
        let range = checkpoint.as_ref().map(|Move { from, upto, .. }| CommittedRange { from, upto });
        namespace.commit_hook().committed(range, effects);
        Ok(())
    }
}
