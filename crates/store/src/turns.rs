//! Many statements in few turns. A turn of a file's connection wakes two threads, which costs more than a small
//! statement.

use futures::future;

use crate::row::Row;
use crate::sql::{Connection, Dialect, QueryBuilder};

/// A statement that binds fewer values shares its turn with the statement after it. While a larger one runs, the next
/// one is built.
const SMALL_VALUES: usize = 256;

/// What happens to the last turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LastTurn {
    Run,
    /// It is returned instead.
    Leave,
}

/// Runs statements one after the other. Returns their rows in that order, and the last turn if it was left.
pub(crate) async fn run_turns(
    dialect: Dialect,
    mut connection: Connection<'_>,
    statements: impl Iterator<Item = QueryBuilder>,
    last: LastTurn,
) -> Result<(Vec<Row>, Option<QueryBuilder>), sqlx::Error> {
    let mut turns = Turns::of(dialect, statements);
    let mut rows = Vec::new();
    let mut next = turns.next();
    while let Some(mut turn) = next {
        if turn.is_last && last == LastTurn::Leave {
            return Ok((rows, Some(turn.statements)));
        }
        let run = turn.statements.build().fetch_all(&mut connection);
        // `join` polls the statement first, which sends it; the next turn is built while the answer is awaited.
        let (answer, following) = future::join(run, async { turns.next() }).await;
        rows.extend(answer?);
        next = following;
    }
    Ok((rows, None))
}

/// The statements of one turn.
struct Turn {
    statements: QueryBuilder,
    is_last: bool,
}

/// Groups statements into turns.
struct Turns<I> {
    dialect: Dialect,
    statements: I,
    /// The first statement of the next turn.
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
        let mut statements = self.held.take()?;
        self.held = self.statements.next();
        while self.dialect == Dialect::Sqlite
            && statements.values() < SMALL_VALUES
            && let Some(next) = self.held.take()
        {
            statements.append(next);
            self.held = self.statements.next();
        }
        Some(Turn { statements, is_last: self.held.is_none() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_statements_share_a_turn_and_a_large_one_ends_it() {
        let sizes = [1, SMALL_VALUES - 2, SMALL_VALUES, 3, SMALL_VALUES + 1, 4];
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
        assert_eq!(turns(Dialect::Sqlite), [(2 * SMALL_VALUES - 1, false), (SMALL_VALUES + 4, false), (4, true)]);
        let alone: Vec<_> = sizes.into_iter().map(|size| (size, size == 4)).collect();
        assert_eq!(turns(Dialect::Postgres), alone);
    }
}
