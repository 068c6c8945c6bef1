//! `board/board.schema.json`, for editors: made from the types by this test (`UPDATE=1` writes it).

use std::path::Path;

use crate::Board;

#[test]
fn the_schema_in_the_repository_is_current() {
    let schema = serde_json::to_string_pretty(&schemars::schema_for!(Board)).expect("JSON") + "\n";
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("board.schema.json");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&file, &schema).expect("written");
    }
    let kept = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(kept == schema, "run with UPDATE=1 and look at the difference");
}
