//! What needs no service: help, usage, topology, models, completions.

use crate::support::Program;

#[test]
fn every_command_has_help_with_examples() {
    let program = Program::alone();
    for command in [
        "",
        "up",
        "serve",
        "topology",
        "topology apply",
        "topology check",
        "topology graph",
        "produce",
        "produce entities",
        "search",
        "tail",
        "status",
        "models",
        "models list",
        "models pull",
        "models verify",
        "eval",
        "completions",
    ] {
        let mut args: Vec<&str> = command.split_whitespace().collect();
        args.push("--help");
        let ran = program.run(&args);
        assert_eq!(ran.code, Some(0), "{command}: {}", ran.err);
        assert!(ran.out.contains("Examples:") && ran.out.contains("Usage: carbon-ml"), "{command}: {}", ran.out);
    }
    let ran = program.run(&["--version"]);
    assert_eq!(ran.out.trim(), concat!("carbon-ml ", env!("CARGO_PKG_VERSION")));
}

#[test]
fn wrong_usage_is_exit_code_2() {
    let program = Program::alone();
    for (args, part) in [
        (&["nonsense"][..], "nonsense"),
        (&["search"], "QUERY"),
        (&["search", "x", "--limit", "0"], "--limit"),
        (&["search", "x", "--filter", "novalue"], "key=value"),
        (&["search", "x", "--filter", "type=a"], "--type"),
        (&["search", "x", "--dense-weight", "2"], "0 to 1"),
        (&["search", "x", "--min-position", "t"], "position"),
        (&["search", "x", "--tenant", "a b"], "tenant"),
        (&["search", "x", "--url", "localhost"], "ML_URL"),
        (&["tail", "a/b"], "topic"),
        (&["tail", "t", "--from", "yesterday"], "earliest"),
        (&["status", "--config", "nowhere.toml"], "nowhere.toml"),
        (&["serve"], "ROLE"),
        (&["serve", "indexer", "embedder"], "add query-api and projections"),
        (&["serve", "embedder", "--no-pull"], "ML_KAFKA_BROKERS"),
        (&["topology", "apply"], "ML_KAFKA_BROKERS"),
        (&["eval", "--corpus", "c", "--queries", "q", "--qrels", "r", "--at-least", "quality@1=0.5"], "ndcg@10"),
    ] {
        let ran = program.run(args);
        assert_eq!(ran.code, Some(2), "{args:?}: {}", ran.err);
        assert!(ran.err.contains(part), "{args:?}: {}", ran.err);
    }
    let ran = program.run_with(&["status"], "", &[("ML_QUERY_PORT", "many")]);
    assert_eq!((ran.code, ran.err.contains("ML_QUERY_PORT")), (Some(2), true), "{}", ran.err);
    let brokers = ("ML_KAFKA_BROKERS", "127.0.0.1:1");
    let ran = program.run_with(&["topology", "apply"], "", &[brokers]);
    assert_eq!((ran.code, ran.err.contains("ML_SCHEMA_REGISTRY_URL")), (Some(2), true), "{}", ran.err);
    let registry = ("ML_SCHEMA_REGISTRY_URL", "http://127.0.0.1:1");
    for (setting, part) in [("ML_KAFKA__ACKS", "law 14"), ("ML_KAFKA__NO_SUCH_THING", "no.such.thing")] {
        let ran = program.run_with(&["topology", "apply"], "", &[brokers, registry, (setting, "1")]);
        assert!(ran.code == Some(2) && ran.err.contains(part), "{setting}: {:?} {}", ran.code, ran.err);
    }
    let ran = program.run_with(&["models", "list"], "", &[("ML_QUERY_PROT", "1")]);
    assert_eq!((ran.code, ran.err.contains("did you mean ML_QUERY_PORT")), (Some(0), true), "{}", ran.err);
}

const TOPOLOGY: &str = include_str!("../../../topology.yaml");

#[test]
fn a_broken_topology_shows_all_its_mistakes() {
    let program = Program::alone();
    assert_eq!(program.run(&["topology", "check"]).code, Some(0));
    let path = program.file("sound.yaml", TOPOLOGY);
    let ran = program.run(&["topology", "check", path.to_str().unwrap()]);
    assert!(ran.code == Some(0) && ran.out.contains("is sound"), "{}{}", ran.out, ran.err);
    let broken =
        TOPOLOGY.replace("writes: catalog", "writes: catalogue").replace("key: [read_model]", "key: [read_modle]");
    let path = program.file("broken.yaml", &broken);
    let ran = program.run(&["topology", "check", path.to_str().unwrap()]);
    assert_eq!(ran.code, Some(5));
    assert!(ran.out.contains("read_modle") && ran.out.contains("catalogue"), "{}", ran.out);
    assert!(ran.err.contains("3 mistakes"), "{}", ran.err);
    let ran = program.run(&["topology", "check", path.to_str().unwrap(), "--json"]);
    let report: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((ran.code, report["mistakes"].as_array().unwrap().len()), (Some(5), 3));
    let path = program.file("syntax.yaml", "topics: [");
    assert_eq!(program.run(&["topology", "check", path.to_str().unwrap()]).code, Some(5));
    assert_eq!(program.run(&["topology", "graph", path.to_str().unwrap()]).code, Some(5));
    let ran = program.run(&["topology", "check", "nowhere.yaml"]);
    assert!(ran.code == Some(4) && ran.err.contains("nowhere.yaml"), "{}", ran.err);
    assert!(program.run(&["topology", "graph"]).out.contains("embedder"));
}

#[test]
fn models_are_listed_and_verified_in_the_data_folder() {
    let program = Program::alone();
    let ran = program.run(&["models", "list"]);
    assert!(ran.code == Some(0) && ran.out.contains("all-MiniLM-L6-v2@1@f32 (default)"), "{}", ran.out);
    let list: serde_json::Value = serde_json::from_str(&program.run(&["models", "list", "--json"]).out).unwrap();
    assert_eq!(list[0]["here"], false);
    let ran = program.run(&["models", "verify"]);
    assert!(ran.code == Some(4) && ran.err.contains("models pull"), "{}", ran.err);
    let ran = program.run(&["models", "verify", "minilm"]);
    assert!(ran.code == Some(5) && ran.err.contains("models pull"), "{}", ran.err);
    let ran = program.run(&["models", "pull", "no-such-model"]);
    assert!(ran.code == Some(4) && ran.err.contains("known models"), "{}", ran.err);
    let ran = program.run(&["models", "pull", "feature-hashing"]);
    assert!(ran.code == Some(0) && ran.out.contains("needs no weights"), "{}", ran.out);
    // A file of the right size that holds something else.
    let blobs = program.folder.path().join("data/models/blobs");
    std::fs::create_dir_all(&blobs).unwrap();
    let config = "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41";
    std::fs::write(blobs.join(config), vec![b'x'; 612]).unwrap();
    assert!(program.run(&["models", "list"]).out.contains("2 of 3 files missing"));
    assert_eq!(program.run(&["models", "verify"]).code, Some(5));
}

#[test]
fn completions_know_the_commands() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let ran = Program::alone().run(&["completions", shell]);
        assert!(ran.code == Some(0) && ran.out.contains("topology"), "{shell}");
    }
}

#[test]
fn an_address_that_is_no_postgres_is_said_and_its_password_is_not() {
    for (address, message) in [
        ("sqlite:///rows.db", "postgresql://user:password@host:5432/database"),
        ("postgresql://me:hidden@127.0.0.1:1/db", "postgresql://127.0.0.1:1/db: "),
    ] {
        let settings = [
            ("ML_MLFLOW_BACKEND_DSN", address),
            ("ML_EMBEDDING_MODEL", "feature-hashing"),
            ("ML_QUERY_PORT", "0"),
            ("ML_TRACKING_PORT", "0"),
        ];
        let ran = Program::alone().run_with(&["up"], "", &settings);
        assert_eq!(ran.code, Some(1), "{}", ran.err);
        assert!(ran.err.contains("ML_MLFLOW_BACKEND_DSN") && ran.err.contains(message), "{}", ran.err);
        assert!(!ran.err.contains("hidden"), "{}", ran.err);
    }
}
