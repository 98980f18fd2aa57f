//! Law 14: `kill -9` at random moments while entities stream in.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::time::Duration;

use support::world::{World, fence};
use support::{Place, Random};

on_both_logs! {
    law_14_kill_9_at_random_moments_loses_and_doubles_nothing,
}

async fn law_14_kill_9_at_random_moments_loses_and_doubles_nothing(place: Place) {
    let rounds: usize = std::env::var("CARBON_CRASH_ROUNDS").map_or(50, |rounds| rounds.parse().unwrap());
    let world = World::default();
    let mut random = Random::new();
    let mut killed_while_starting = 0;
    for round in 0..=rounds {
        if random.below(8) == 0 {
            // A kill during the start, too.
            let mut child = support::spawn(place.path(), &place.settings());
            tokio::time::sleep(Duration::from_millis(random.below(150))).await;
            child.0.kill().unwrap();
            child.0.wait().unwrap();
            killed_while_starting += 1;
        }
        let server = place.start().await;
        // What a killed process had sent to a broker may have landed without its knowing.
        let position = if place.cluster.is_some() { Some(fence(&server).await) } else { None };
        world.verify(&server, position.as_deref(), round).await;
        if round == rounds {
            break;
        }
        let writers = world.write(&server.tracking, &server.http, &mut random, round as u64 * 1_000_000);
        // The moment of the kill is the point of the test, not a synchronisation.
        tokio::time::sleep(Duration::from_millis(5 + random.below(400))).await;
        server.kill();
        world.settle(writers).await;
    }
    let (entities, deletions) = world.count();
    // A few rounds may all be cut short; many cannot.
    assert!(rounds < 10 || (entities > 20 && deletions > 10), "{entities} entities, {deletions} deletions");
    println!("{rounds} kills while streaming, {killed_while_starting} while starting, {entities} entities");
}
