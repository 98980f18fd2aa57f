//! Stages and aliases: a pure function of the periods of names, the versions and the promotions. So the order in which
//! their topics are folded does not matter, and the result can be computed as of any time in the past.

use std::collections::BTreeMap;

/// A period in which a registration had a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamePeriod {
    pub name: String,
    pub registration: String,
    pub opened_at: i64,
    pub closed_at: Option<i64>,
}

impl NamePeriod {
    /// Whether the registration had the name at a time.
    pub fn is_open_at(&self, at: i64) -> bool {
        self.opened_at <= at && self.closed_at.is_none_or(|closed| closed > at)
    }
}

/// A version, with the fields that promotions refer to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionState {
    pub version: i64,
    pub version_id: String,
    pub run_id: String,
    pub deleted_at: Option<i64>,
}

/// A promotion, as its event says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Promotion {
    pub offset: i64,
    pub occurred_at: i64,
    pub model_name: String,
    pub registration: Option<String>,
    pub version: Option<i64>,
    pub version_id: Option<String>,
    pub run_id: Option<String>,
    pub stage: Option<String>,
    pub alias: Option<String>,
    pub archive_existing: bool,
}

/// The outcome of a promotion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    Applied,
    NoSuchModel,
    NoSuchVersion,
    /// The number belongs to a version with another `version_id` or `run_id`.
    AnotherVersion,
}

impl Effect {
    pub fn as_str(self) -> &'static str {
        match self {
            Effect::Applied => "applied",
            Effect::NoSuchModel => "no_such_model",
            Effect::NoSuchVersion => "no_such_version",
            Effect::AnotherVersion => "another_version",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        let all = [Self::Applied, Self::NoSuchModel, Self::NoSuchVersion, Self::AnotherVersion];
        all.into_iter().find(|effect| effect.as_str() == text)
    }
}

/// The stages and aliases of one registration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// By version: its stage, and the time at which it got the stage. A version without an entry has the stage `None`.
    pub stages: BTreeMap<i64, (String, i64)>,
    pub aliases: BTreeMap<String, i64>,
    /// The time of the last change of a stage.
    pub staged_at: Option<i64>,
}

/// The registration that a promotion means: the one that it names, else the one that had the name at that time, else
/// the next one that got the name. `periods` are those of the promotion's name, in log order.
pub fn target_registration<'a>(promotion: &'a Promotion, periods: &'a [NamePeriod]) -> Option<&'a str> {
    if let Some(named) = &promotion.registration {
        return Some(named);
    }
    let at = promotion.occurred_at;
    let mut periods = periods.iter().filter(|period| period.name == promotion.model_name);
    let had = periods.clone().rfind(|period| period.is_open_at(at));
    had.or_else(|| periods.find(|period| period.opened_at > at)).map(|period| period.registration.as_str())
}

/// The outcome of a promotion that means this registration.
pub fn effect(promotion: &Promotion, versions: &[VersionState]) -> Effect {
    let Some(number) = promotion.version else { return Effect::Applied };
    let Ok(at) = versions.binary_search_by_key(&number, |version| version.version) else {
        return Effect::NoSuchVersion;
    };
    let version = &versions[at];
    let differs = |asked: &Option<String>, own: &str| asked.as_deref().is_some_and(|asked| asked != own);
    if differs(&promotion.version_id, &version.version_id) || differs(&promotion.run_id, &version.run_id) {
        return Effect::AnotherVersion;
    }
    match version.deleted_at.is_some_and(|deleted| deleted <= promotion.occurred_at) {
        true => Effect::NoSuchVersion,
        false => Effect::Applied,
    }
}

/// The stages and aliases after `promotions`, now or as of a time in the past. `promotions` are those that mean this
/// registration, in log order; `versions` are sorted by number.
pub fn standing(versions: &[VersionState], promotions: &[Promotion], as_of: Option<i64>) -> Standing {
    let mut standing = Standing::default();
    for promotion in promotions {
        let at = promotion.occurred_at;
        if as_of.is_some_and(|until| at > until) || effect(promotion, versions) != Effect::Applied {
            continue;
        }
        match (&promotion.stage, &promotion.alias, promotion.version) {
            (Some(stage), _, Some(version)) => {
                if promotion.archive_existing {
                    for (other, entry) in &mut standing.stages {
                        if *other != version && entry.0 == *stage {
                            *entry = ("Archived".to_owned(), at);
                        }
                    }
                }
                standing.stages.insert(version, (stage.clone(), at));
                standing.staged_at = standing.staged_at.max(Some(at));
            }
            (None, Some(alias), Some(version)) => {
                standing.aliases.insert(alias.clone(), version);
            }
            (None, Some(alias), None) => {
                standing.aliases.remove(alias);
            }
            _ => {}
        }
    }
    // The aliases of a deleted version are gone: they do not return to the version that had them before.
    let there = |number: &i64| {
        versions.iter().any(|version| {
            let gone = version.deleted_at.is_some_and(|deleted| as_of.is_none_or(|until| deleted <= until));
            version.version == *number && !gone
        })
    };
    standing.aliases.retain(|_, version| there(version));
    standing.stages.retain(|version, _| there(version));
    standing
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(version: i64) -> VersionState {
        VersionState { version, version_id: format!("id-{version}"), run_id: String::new(), deleted_at: None }
    }

    fn promotion(offset: i64, version: Option<i64>) -> Promotion {
        Promotion {
            offset,
            occurred_at: offset * 10,
            model_name: "m".into(),
            registration: None,
            version,
            version_id: None,
            run_id: None,
            stage: None,
            alias: None,
            archive_existing: false,
        }
    }

    fn stage(offset: i64, version: i64, stage: &str, archive_existing: bool) -> Promotion {
        Promotion { stage: Some(stage.into()), archive_existing, ..promotion(offset, Some(version)) }
    }

    fn alias(offset: i64, version: Option<i64>) -> Promotion {
        Promotion { alias: Some("champion".into()), ..promotion(offset, version) }
    }

    fn stages(standing: &Standing) -> Vec<(i64, &str, i64)> {
        standing.stages.iter().map(|(version, (stage, at))| (*version, stage.as_str(), *at)).collect()
    }

    #[test]
    fn the_last_stage_wins_and_archives_the_others_if_asked() {
        let versions = [version(1), version(2), version(3)];
        let promotions = [
            stage(1, 1, "Production", false),
            stage(2, 2, "Production", false),
            stage(3, 3, "Staging", true),
            stage(4, 3, "Production", true),
        ];
        let now = standing(&versions, &promotions, None);
        assert_eq!(stages(&now), [(1, "Archived", 40), (2, "Archived", 40), (3, "Production", 40)]);
        let then = standing(&versions, &promotions, Some(39));
        assert_eq!(stages(&then), [(1, "Production", 10), (2, "Production", 20), (3, "Staging", 30)]);
        assert_eq!((now.staged_at, then.staged_at), (Some(40), Some(30)));
    }

    #[test]
    fn an_alias_moves_and_is_removed_with_its_version() {
        let promotions = [alias(1, Some(1)), alias(2, Some(2))];
        let mut versions = [version(1), version(2)];
        assert_eq!(standing(&versions, &promotions, None).aliases["champion"], 2);
        versions[1].deleted_at = Some(30);
        assert!(standing(&versions, &promotions, None).aliases.is_empty());
        assert_eq!(standing(&versions, &promotions, Some(29)).aliases["champion"], 2);
        assert_eq!(standing(&versions, &promotions, Some(10)).aliases["champion"], 1);
        assert!(standing(&versions, &[alias(1, Some(1)), alias(2, None)], None).aliases.is_empty());
    }

    #[test]
    fn a_promotion_of_the_loser_of_a_race_has_no_effect() {
        let mut versions = [version(1), version(2)];
        versions[0].run_id = "winner".into();
        versions[1].deleted_at = Some(5);
        let mine = |run: &str, id: &str| Promotion {
            run_id: Some(run.into()),
            version_id: Some(id.into()),
            ..stage(1, 1, "Production", true)
        };
        for (promotion, expected) in [
            (mine("winner", "id-1"), Effect::Applied),
            (mine("loser", "id-1"), Effect::AnotherVersion),
            (mine("winner", "id-7"), Effect::AnotherVersion),
            (stage(1, 2, "Production", true), Effect::NoSuchVersion),
            (stage(0, 2, "Production", true), Effect::Applied),
            (stage(1, 9, "Production", true), Effect::NoSuchVersion),
        ] {
            assert_eq!(effect(&promotion, &versions), expected, "{promotion:?}");
            let standing = standing(&versions, &[promotion], None);
            assert_eq!(standing.stages.contains_key(&1), expected == Effect::Applied && standing.staged_at == Some(10));
        }
    }

    #[test]
    fn a_name_means_the_registration_that_had_it_then_or_else_the_next() {
        let period = |registration: &str, opened_at, closed_at| NamePeriod {
            name: "m".into(),
            registration: registration.into(),
            opened_at,
            closed_at,
        };
        let periods = [period("a", 10, Some(20)), period("b", 30, Some(40)), period("c", 50, None)];
        let at = |occurred_at| Promotion { occurred_at, ..alias(0, Some(1)) };
        for (time, expected) in [(5, "a"), (10, "a"), (19, "a"), (20, "b"), (35, "b"), (40, "c"), (99, "c")] {
            assert_eq!(target_registration(&at(time), &periods), Some(expected), "{time}");
        }
        assert_eq!(target_registration(&at(45), &periods[..2]), None);
        let named = Promotion { registration: Some("x".into()), ..at(5) };
        assert_eq!(target_registration(&named, &periods), Some("x"));
    }
}
