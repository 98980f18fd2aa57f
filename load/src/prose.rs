//! Prose of energy markets: distinct texts of about seventy words, and queries that fit them.

use crate::random::Random;

const HUBS: &[&str] = &[
    "Henry Hub",
    "Waha",
    "Transco Zone 6",
    "Dominion South",
    "AECO",
    "Sumas",
    "Malin",
    "PG&E Citygate",
    "TTF",
    "NBP",
    "THE",
    "PEG",
    "PSV",
    "JKM",
    "Cushing",
    "Rotterdam",
    "Singapore",
    "Houston",
    "New York Harbor",
    "PJM West",
    "ERCOT North",
    "Nord Pool",
    "EPEX",
    "CAISO SP15",
    "Mid-Columbia",
    "Newcastle",
    "Richards Bay",
    "Corpus Christi",
    "Sabine Pass",
    "Zeebrugge",
];
const GOODS: &[&str] = &[
    "natural gas",
    "crude oil",
    "heating oil",
    "gasoline",
    "jet fuel",
    "fuel oil",
    "propane",
    "ethane",
    "LNG cargoes",
    "power",
    "peak power",
    "off-peak power",
    "thermal coal",
    "carbon allowances",
    "renewable certificates",
    "naphtha",
    "gasoil",
    "biodiesel",
    "ethanol",
    "uranium",
    "hydrogen",
    "capacity",
    "transmission rights",
    "freight",
];
const FORMS: &[&str] = &[
    "futures contract",
    "balance of month swap",
    "basis swap",
    "calendar strip",
    "call option",
    "put option",
    "spread",
    "spark spread",
    "crack spread",
    "index swap",
    "physical forward",
    "swing contract",
    "storage lease",
    "tolling agreement",
    "collar",
    "daily option",
    "time spread",
    "location spread",
    "tender",
    "prompt month swap",
];
const VERBS: &[&str] = &[
    "settles against",
    "is priced on",
    "tracks",
    "hedges",
    "follows",
    "is exposed to",
    "reacts to",
    "clears through",
    "converges to",
    "rolls into",
    "is marked to",
    "diverges from",
];
const DRIVERS: &[&str] = &[
    "winter heating demand",
    "storage injections",
    "a cold snap in the northeast",
    "hurricane outages",
    "refinery maintenance",
    "pipeline constraints",
    "wind output",
    "solar curtailment",
    "reservoir levels",
    "nuclear availability",
    "export terminal outages",
    "shipping delays",
    "export quotas",
    "carbon policy",
    "fuel switching",
    "drilling activity",
    "associated gas production",
    "a mild spring",
    "summer cooling load",
    "river levels",
    "sanctions",
    "tax credits",
    "interconnector trips",
    "strike action",
    "inventory draws",
];
const PARTIES: &[&str] = &[
    "utilities",
    "producers",
    "airlines",
    "refiners",
    "municipal buyers",
    "storage operators",
    "trading houses",
    "pension funds",
    "industrial consumers",
    "independent power plants",
    "shippers",
    "distributors",
    "miners",
    "farm cooperatives",
];
const TENORS: &[&str] = &[
    "the prompt month",
    "the next winter",
    "the coming summer",
    "calendar 2027",
    "calendar 2028",
    "the first quarter",
    "the second quarter",
    "the third quarter",
    "the fourth quarter",
    "the next gas day",
    "the week ahead",
    "ten years out",
    "the injection season",
];
const ADVERBS: &[&str] = &[
    "usually",
    "rarely",
    "sharply",
    "slowly",
    "seasonally",
    "since the last auction",
    "in most years",
    "under stress",
    "after expiry",
];

/// A text that no other number has: its words differ, and it names its own number in words of its own.
pub fn text(random: &mut Random, number: usize) -> String {
    let mut text =
        format!("{} {} {} series {}. ", random.pick(HUBS), random.pick(GOODS), random.pick(FORMS), name_of(number));
    for _ in 0..4 {
        text.push_str(&format!(
            "The {} of {} at {} for {} {} {} {} because {} matter to {}. ",
            random.pick(FORMS),
            random.pick(GOODS),
            random.pick(HUBS),
            random.pick(TENORS),
            random.pick(ADVERBS),
            random.pick(VERBS),
            random.pick(GOODS),
            random.pick(DRIVERS),
            random.pick(PARTIES)
        ));
    }
    text
}

/// What a trader might type.
pub fn query(random: &mut Random) -> String {
    format!("{} {} {} {}", random.pick(HUBS), random.pick(GOODS), random.pick(FORMS), random.pick(DRIVERS))
}

/// A pronounceable name of a number.
fn name_of(mut number: usize) -> String {
    const SYLLABLES: &[&str] =
        &["ba", "do", "fe", "gi", "ku", "la", "mo", "ne", "pi", "ru", "sa", "to", "ve", "wi", "xa", "zu"];
    let mut name = String::new();
    for _ in 0..5 {
        name.push_str(SYLLABLES[number % SYLLABLES.len()]);
        number /= SYLLABLES.len();
    }
    name
}
