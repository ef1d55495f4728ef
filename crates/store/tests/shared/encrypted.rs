//! TLS to the server: checked against the authority that is named, and never silently left out.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::PathBuf,
};

use store::{Postgres, Shared as _, Store as _, StoreError};

use crate::{samples::*, server, subject::*};

/// Puts a certificate for 127.0.0.1 before the server, and has it listen there. Its certificate, and its port.
fn encrypt(server: &server::Server, config: &str) -> (PathBuf, u16) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let (certificate, key) = (server.folder().join("cert.pem"), server.folder().join("key.pem"));
    fs::write(&certificate, made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let owner = fs::metadata(server.folder()).unwrap();
    chown(&key, Some(owner.uid()), Some(owner.gid())).unwrap();
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    for set in [
        "ssl_cert_file = '".to_owned() + certificate.to_str().unwrap() + "'",
        "ssl_key_file = '".to_owned() + key.to_str().unwrap() + "'",
        "ssl = on".into(),
        "listen_addresses = '127.0.0.1'".into(),
        format!("port = {port}"),
    ] {
        server::sql(config, &format!("ALTER SYSTEM SET {set}"));
    }
    server.restart();
    (certificate, port)
}

#[tokio::test]
async fn a_server_is_spoken_to_in_secret_if_it_is_the_one_that_was_meant() {
    let server = server::Server::start();
    let home = home_on(&server);
    let (certificate, port) = encrypt(&server, &home.config);
    let config = |mode: &str| format!("host=127.0.0.1 port={port} user=quell dbname=t0 sslmode={mode}");
    let connect = |mode: &str, authority: Option<&PathBuf>| {
        let authority = authority.map(PathBuf::as_path);
        Postgres::connect(&config(mode), None, authority, name(0), home.folders[0].path())
    };
    // One that nobody on this machine has ever heard of, and another one's.
    let other = home.folders[1].path().join("other.pem");
    fs::write(&other, rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap().cert.pem())
        .unwrap();
    for authority in [None, Some(&other)] {
        let refused = connect("require", authority).err();
        assert!(matches!(refused, Some(StoreError::Unopenable(_))), "{refused:?}");
    }
    // From here on the server takes nothing in the clear.
    let host = "hostssl all all 127.0.0.1/32 trust\nlocal all all trust\n";
    fs::write(server.folder().join("data/pg_hba.conf"), host).unwrap();
    server.restart();
    assert!(connect("disable", Some(&certificate)).is_err());
    assert!(connect("prefer", None).is_err(), "without an authority it is the clear");
    for mode in ["require", "prefer"] {
        let store = connect(mode, Some(&certificate)).unwrap();
        soon(async {
            store.join(joining(60_000)).await.unwrap();
            store.prune(i64::MAX, 9).await.unwrap();
            store.accept(invocation(if mode == "require" { 1 } else { 2 })).await.unwrap();
            store.close().await.unwrap();
        })
        .await;
    }
}
