use super::*;
use serde_json::{Value, json};

fn keyring(config: &Value) -> Keyring {
    Keyring { origin: "it".into(), config: parse("it", config.to_string().as_bytes()).unwrap() }
}

async fn check(config: Value, registry: &str, repository: &str, expected: Option<(&str, &str)>) {
    let expected = expected
        .map(|(username, password)| Credential::Password { username: username.into(), password: password.into() });
    let found = keyring(&config).credential(registry, repository).await.unwrap();
    assert!(found == expected, "{registry}/{repository} in {config}");
}

fn entry(username: &str) -> Value {
    json!({"auth": STANDARD.encode(format!("{username}:p:w"))})
}

#[tokio::test]
async fn an_entry_is_of_its_host_and_port() {
    let of = |key: &str| json!({"auths": {key: entry("me")}});
    let mine = Some(("me", "p:w"));
    for key in ["r.example:5000", "https://r.example:5000", "http://r.example:5000/v1/", "r.example:5000/v2"] {
        check(of(key), "r.example:5000", "models/digits", mine).await;
        for other in ["r.example", "r.example:5001", "x.r.example:5000", "example:5000"] {
            check(of(key), other, "models/digits", None).await;
        }
    }
    for key in ["https://index.docker.io/v1/", "docker.io", "registry-1.docker.io"] {
        check(of(key), "docker.io", "me/digits", mine).await;
    }
    check(of("*.example.com"), "r.example.com", "m", mine).await;
    for other in ["example.com", "a.r.example.com", "r.example.com:443", "r.example.org"] {
        check(of("*.example.com"), other, "m", None).await;
    }
}

#[tokio::test]
async fn of_entries_with_paths_the_longest_that_leads_there() {
    let config = json!({"auths": {"r.example": entry("all"), "r.example/a": entry("a"), "r.example/a/b": entry("b"), "*.example": entry("any")}});
    for (repository, expected) in [("x", "all"), ("a/c", "a"), ("a", "a"), ("ab", "all"), ("a/b/c", "b"), ("a/bc", "a")]
    {
        check(config.clone(), "r.example", repository, Some((expected, "p:w"))).await;
    }
    check(config, "s.example", "a/b", Some(("any", "p:w"))).await;
}

#[tokio::test]
async fn an_entry_is_a_password_or_a_token() {
    let found = async |entry: Value| keyring(&json!({"auths": {"r": entry}})).credential("r", "m").await;
    let password = |username: &str, password: &str| {
        Ok(Some(Credential::Password { username: username.into(), password: password.into() }))
    };
    assert!(found(json!({"username": "me", "password": "p"})).await == password("me", "p"));
    // As Kubernetes writes it: all at once.
    assert!(
        found(json!({"username": "x", "password": "y", "auth": STANDARD.encode("me:p")})).await == password("me", "p")
    );
    assert!(
        found(json!({"auth": STANDARD.encode("me:"), "identitytoken": "t"})).await
            == Ok(Some(Credential::Identity("t".into())))
    );
    assert!(found(json!({"registrytoken": "t"})).await == Ok(Some(Credential::Token("t".into()))));
    assert!(found(json!({})).await == Ok(None));
    for bad in [
        json!({"registrytoken": "a\nb"}),
        json!({"auth": "%"}),
        json!({"auth": STANDARD.encode("me")}),
        json!({"username": "me"}),
    ] {
        let error = found(bad).await.unwrap_err();
        assert_eq!(error, KeyringError::Entry { origin: "it".into(), registry: "r".into() });
    }
}

#[tokio::test]
async fn nothing_of_a_password_is_said() {
    for broken in ["{\"auths\": {\"r\": \"hunter2\"}}", "{\"auths\": {\"r\": {\"auth\": [\"hunter2\"]}}}", "hunter2"] {
        let told = Keyring::of_secret("Secret s in n".into(), broken.as_bytes()).err().unwrap();
        let told = format!("{told} {told:?}");
        assert!(
            told.starts_with("Secret s in n is no JSON as docker writes it (line 1") && !told.contains("hunter2"),
            "{told}"
        );
    }
    let secret = json!({"auths": {"r": {"username": "hunter2", "password": "hunter2"}}}).to_string();
    let keyring = Keyring::of_secret("Secret s in n".into(), secret.as_bytes()).unwrap();
    assert_eq!(format!("{:?}", keyring.credential("r", "m").await.unwrap()), "Some(Credential)");
    let told = keyring.must_open("other", "m").await.unwrap_err().to_string();
    assert_eq!(told, "Secret s in n has no name and password for other; add them");
}

#[tokio::test]
async fn a_program_keeps_passwords_for_a_person_and_is_not_started_for_a_secret() {
    let config = json!({"credsStore": "sconce/absent"});
    let error = keyring(&config).credential("r", "m").await.unwrap_err().to_string();
    assert_eq!(
        error,
        "it has its passwords with docker-credential-sconce/absent, and that says none for r: that is no name of a program"
    );
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(SECRET_FILE), config.to_string()).unwrap();
    let mounted = Keyring::in_folder(folder.path()).unwrap();
    for keyring in [Keyring::of_secret("it".into(), config.to_string().as_bytes()).unwrap(), mounted] {
        assert!(keyring.credential("r", "m").await == Ok(None));
    }
}

#[tokio::test]
async fn a_program_that_is_gone_leaves_what_the_file_has_and_what_is_open_to_all() {
    let gone =
        json!({"credHelpers": {"r": "sconce-absent"}, "credsStore": "sconce-absent", "auths": {"r": entry("me")}});
    check(gone.clone(), "r", "m", Some(("me", "p:w"))).await;
    check(gone, "s", "m", None).await;
}

#[tokio::test]
async fn a_folder_without_a_file_opens_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let keyring = Keyring::in_folder(folder.path()).unwrap();
    assert!(keyring.credential("r", "m").await == Ok(None));
    std::fs::write(folder.path().join("config.json"), json!({"auths": {"r": entry("me")}}).to_string()).unwrap();
    let keyring = Keyring::in_folder(folder.path()).unwrap();
    keyring.must_open("r", "m").await.unwrap();
    assert!(keyring.origin().ends_with("/config.json"));
    let mounted = tempfile::tempdir().unwrap();
    std::fs::write(mounted.path().join(SECRET_FILE), json!({"auths": {"r": entry("me")}}).to_string()).unwrap();
    let keyring = Keyring::in_folder(mounted.path()).unwrap();
    keyring.must_open("r", "m").await.unwrap();
    assert!(keyring.origin().ends_with("/.dockerconfigjson"));
}
