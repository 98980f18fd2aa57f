//! Many statements in few turns: a turn of a file's connection wakes two threads, which costs more than a small statement.

use futures::future::{self, BoxFuture, TryFutureExt as _};

use crate::namespace::Tables;
use crate::row::Row;
use crate::sql::{Dialect, QueryBuilder};

/// A statement of fewer values goes with the one after it. Larger ones run while the next is put together.
const SMALL: usize = 256;

impl Tables<'_> {
    /// Runs statements one after the other; the rows that they answer, in that order.
    pub fn run<'s, I>(&'s mut self, statements: I) -> BoxFuture<'s, Result<Vec<Row>, sqlx::Error>>
    where
        I: IntoIterator<Item = QueryBuilder, IntoIter: Send + 's>,
    {
        // Boxed, since the compiler does not see through such iterators that a fold may change threads.
        Box::pin(self.take_turns(statements.into_iter(), false))
    }

    /// Runs the statements that a fold ends with, which answer nothing: the last of them with the commit.
    pub fn end<'s, I>(&'s mut self, statements: I) -> BoxFuture<'s, Result<(), sqlx::Error>>
    where
        I: IntoIterator<Item = QueryBuilder, IntoIter: Send + 's>,
    {
        Box::pin(self.take_turns(statements.into_iter(), true).map_ok(drop))
    }

    async fn take_turns(
        &mut self,
        statements: impl Iterator<Item = QueryBuilder>,
        ends: bool,
    ) -> Result<Vec<Row>, sqlx::Error> {
        let mut turns = Turns::of(self.dialect(), statements);
        let mut rows = Vec::new();
        let mut next = turns.next();
        while let Some(mut turn) = next {
            if ends && turn.is_last {
                self.last.push(turn.statements);
                break;
            }
            let run = turn.statements.build().fetch_all(self.connection());
            // The first that is polled sends its statements away, and the other has the time until the answer.
            let (answer, following) = future::join(run, async { turns.next() }).await;
            rows.extend(answer?);
            next = following;
        }
        Ok(rows)
    }
}

/// What goes in one turn.
struct Turn {
    statements: QueryBuilder,
    is_last: bool,
}

/// Statements, gathered into turns.
struct Turns<I> {
    dialect: Dialect,
    statements: I,
    /// The first of the next turn.
    held: Option<QueryBuilder>,
}

impl<I: Iterator<Item = QueryBuilder>> Turns<I> {
    fn of(dialect: Dialect, mut statements: I) -> Self {
        Self { dialect, held: statements.next(), statements }
    }
}

impl<I: Iterator<Item = QueryBuilder>> Iterator for Turns<I> {
    type Item = Turn;

    fn next(&mut self) -> Option<Turn> {
        let mut gathered = self.held.take()?;
        self.held = self.statements.next();
        while self.dialect == Dialect::Sqlite
            && gathered.values() < SMALL
            && let Some(next) = self.held.take()
        {
            gathered.append(next);
            self.held = self.statements.next();
        }
        Some(Turn { statements: gathered, is_last: self.held.is_none() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_statements_go_together_and_a_large_one_ends_the_turn() {
        let sizes = [1, SMALL - 2, SMALL, 3, SMALL + 1, 4];
        let turns = |dialect| {
            let statements = sizes.into_iter().map(move |size| {
                let mut statement = QueryBuilder::new(dialect, "s");
                (0..size as i64).for_each(|n| {
                    statement.push_bind(n);
                });
                statement
            });
            Turns::of(dialect, statements).map(|turn| (turn.statements.values(), turn.is_last)).collect::<Vec<_>>()
        };
        assert_eq!(turns(Dialect::Sqlite), [(2 * SMALL - 1, false), (SMALL + 4, false), (4, true)]);
        let alone: Vec<_> = sizes.into_iter().map(|size| (size, size == 4)).collect();
        assert_eq!(turns(Dialect::Postgres), alone);
    }
}
