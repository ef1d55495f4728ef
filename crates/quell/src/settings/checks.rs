//! What can only be seen of all settings together, or of the machine.

use std::path::Path;

use supervisor::http::Certificates;

use super::{
    Mistakes, NodeSettings, SETTINGS, Setting, StoreUrl,
    given::{Loaded, Origin},
};
use crate::runtime_user::RuntimeUser;

/// Adds what is wrong. Reads files that are named; makes and binds nothing.
pub(super) fn check(loaded: &Loaded, mistakes: &mut Mistakes) {
    tls(loaded, mistakes);
    logs(loaded, mistakes);
    let settings = &loaded.settings;
    for folder in &settings.images {
        if let Err(error) = std::fs::read_dir(folder) {
            mistakes.add(place(loaded, "images"), format!("{} cannot be read: {error}", folder.display()));
        }
    }
    if let Some(open) = settings.metrics_listen
        && open == settings.listen
        && open.port() != 0
    {
        mistakes.add(
            place(loaded, "metrics_listen"),
            format!("metrics_listen and listen are both {open}: give one of them another port"),
        );
    }
    if settings.otlp_endpoint.is_some() && !cfg!(feature = "otlp") {
        mistakes.add(
            place(loaded, "otlp_endpoint"),
            "this binary was built without the feature `otlp`: build it with `cargo build --release --features otlp`",
        );
    }
    for key in ["store_password_file", "store_ca"] {
        let file = match key {
            "store_ca" => &settings.store_ca,
            _ => &settings.store_password_file,
        };
        let Some(file) = file else { continue };
        if settings.store.is_none() {
            mistakes.add(place(loaded, key), "it needs store beside it: without one there is no server");
        } else {
            readable(file, place(loaded, key), mistakes);
        }
    }
    // The default in a file, as in one made of the example, promises nothing that does not hold.
    if settings.store.is_none() && settings.lease != NodeSettings::default().lease {
        mistakes.add(
            place(loaded, "lease_s"),
            "it needs store beside it: a node with a store of its own has no lease",
        );
    }
    let root = nix::unistd::geteuid().is_root();
    if let (RuntimeUser::Number(user), false) = (settings.runtime_user, root) {
        mistakes.add(
            place(loaded, "runtime_user"),
            format!("only root can run runtimes as user {user}: start the node as root, or write \"node\""),
        );
    }
}

fn readable(file: &Path, place: String, mistakes: &mut Mistakes) {
    if let Err(error) = std::fs::File::open(file) {
        mistakes.add(place, format!("{} cannot be read: {error}", file.display()));
    }
}

/// The same of a server that a command names without a node's other settings; its URL is never shown whole, as there may
/// be a password in it.
///
/// # Errors
/// Everything that is wrong with it.
pub(crate) fn server(store: &str, password: Option<&Path>, ca: Option<&Path>) -> Result<StoreUrl, Mistakes> {
    let mut mistakes = Mistakes::default();
    let url = StoreUrl::parse(store).map_err(|what| mistakes.add("--store (QUELL_STORE)", what));
    for (file, place) in
        [(password, "--store-password-file (QUELL_STORE_PASSWORD_FILE)"), (ca, "--store-ca (QUELL_STORE_CA)")]
    {
        if let Some(file) = file {
            readable(file, place.to_owned(), &mut mistakes);
        }
    }
    match url {
        Ok(url) => mistakes.none_or(url),
        Err(()) => Err(mistakes),
    }
}

fn setting(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}

fn place(loaded: &Loaded, key: &str) -> String {
    setting(key).map_or_else(|| key.to_owned(), |setting| loaded.origin(key).place(setting))
}

fn tls(loaded: &Loaded, mistakes: &mut Mistakes) {
    let settings = &loaded.settings;
    let alone = |key: &str, other: &str| {
        let flag = other.replace('_', "-");
        (place(loaded, key), format!("it needs {other} beside it (--{flag}, QUELL_{})", other.to_uppercase()))
    };
    let (chain, key) = (settings.tls_cert.as_deref(), settings.tls_key.as_deref());
    // Each by itself first: whoever has to mend both is told of both.
    let mut faults = Vec::new();
    if let Some(Err(fault)) = chain.map(Certificates::look_at_chain) {
        faults.push((place(loaded, "tls_cert"), fault.to_string()));
    }
    if let Some(Err(fault)) = key.map(Certificates::look_at_key) {
        faults.push((place(loaded, "tls_key"), fault.to_string()));
    }
    match (chain, key) {
        (None, None) => {}
        (Some(_), None) => faults.push(alone("tls_cert", "tls_key")),
        (None, Some(_)) => faults.push(alone("tls_key", "tls_cert")),
        (Some(chain), Some(key)) if faults.is_empty() => {
            if let Err(fault) = Certificates::open(chain, key) {
                faults.push((place(loaded, "tls_cert"), fault.to_string()));
            }
        }
        (Some(_), Some(_)) => {}
    }
    for (at, what) in faults {
        mistakes.add(at, what);
    }
}

/// A bound that a smaller one beside it makes meaningless; of those that somebody chose.
fn logs(loaded: &Loaded, mistakes: &mut Mistakes) {
    let settings = &loaded.settings;
    let bounds = [
        ("log_instance_mib", settings.log_instance_mib),
        ("log_function_mib", settings.log_function_mib),
        ("log_total_mib", settings.log_total_mib),
    ];
    let chosen: Vec<_> =
        bounds.into_iter().filter(|(key, _)| *loaded.origin(key) != Origin::Default).collect();
    for pair in chosen.windows(2) {
        if let [(part, less), (whole, more)] = pair
            && less > more
        {
            mistakes.add(
                place(loaded, part),
                format!("{part} is {less}, more than {whole}, which is {more} and includes it"),
            );
        }
    }
}
