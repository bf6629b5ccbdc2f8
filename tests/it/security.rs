//! What SECURITY.md promises is held to by tests.

use std::fs;
use std::path::Path;

/// SECURITY.md names the test that holds each promise: `path::name`, or `::name` in the file that was named last.
#[test]
fn each_promise_of_security_names_a_test_that_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("SECURITY.md")).unwrap();
    let (mut file, mut found) = (String::new(), 0);
    for word in text.split('`').skip(1).step_by(2) {
        let Some((path, name)) = word.split_once("::") else { continue };
        if path == "path" || name == "name" {
            continue;
        }
        if !path.is_empty() {
            path.clone_into(&mut file);
        }
        let tests = fs::read_to_string(root.join(&file)).unwrap_or_else(|_| panic!("{word}: no {file}"));
        assert!(tests.contains(&format!("fn {name}(")), "{file} has no test {name}");
        found += 1;
    }
    assert!(found > 50, "only {found} tests are named");
}
