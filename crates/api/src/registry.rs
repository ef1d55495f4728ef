//! What handlers share: the way to the supervisor and the store, and the functions ready to run.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
};

use bytes::Bytes;
use store::{AliasRecord, FunctionKey, FunctionRecord, LATEST, Store};
use supervisor::{AsyncPolicy, FunctionSpec, Handle, RuntimeImage};

use crate::{
    async_config::AsyncConfig,
    auth::{Guard, Locks, RateLimits, secrets::NodeKey},
    backup,
    error::ApiError,
    health::StoreTried,
    metrics::HttpMetrics,
    package,
    spec::{FunctionConfig, bad, listed},
};

/// What can be set of the API.
#[derive(Clone, Debug)]
pub struct ApiSettings {
    /// The region in URNs.
    pub region: String,
    /// Code is unpacked below it.
    pub data_dir: PathBuf,
    /// How much callers may ask.
    pub limits: RateLimits,
}

/// The aliases of one function by name. Bounded by `MAX_ALIASES`.
pub(crate) type Aliases = BTreeMap<Arc<str>, AliasRecord>;

/// The API's state. Functions and aliases are cached: the store is asked when they change, not when they run.
pub struct Api {
    pub(crate) handle: Handle,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) settings: ApiSettings,
    pub(crate) key: NodeKey,
    pub(crate) guard: Guard,
    pub(crate) metrics: HttpMetrics,
    pub(crate) store_tried: StoreTried,
    /// Wrong passwords.
    pub(crate) logins: Locks,
    images: Vec<Arc<RuntimeImage>>,
    /// Every version by its key.
    pub(crate) functions: RwLock<HashMap<FunctionKey, Arc<FunctionSpec>>>,
    /// By the function, in its latest version.
    aliases: RwLock<HashMap<FunctionKey, Aliases>>,
    /// One change of functions at a time: a change reads, checks and writes.
    pub(crate) changing: tokio::sync::Mutex<()>,
}

impl Api {
    /// An API over a running node.
    pub fn new(
        handle: Handle,
        store: Arc<dyn Store>,
        key: NodeKey,
        images: Vec<Arc<RuntimeImage>>,
        settings: ApiSettings,
    ) -> Arc<Self> {
        let guard = Guard::new(settings.limits);
        Arc::new(Self {
            handle,
            store,
            settings,
            key,
            guard,
            metrics: HttpMetrics::default(),
            store_tried: StoreTried::default(),
            logins: Locks::default(),
            images,
            functions: RwLock::default(),
            aliases: RwLock::default(),
            changing: tokio::sync::Mutex::new(()),
        })
    }

    /// Has these limits hold from now on.
    pub fn limit(&self, limits: RateLimits) {
        self.guard.limit(limits);
    }

    /// Reads every function of the store, in every version, and makes it ready to run. A function whose image or code is
    /// missing is logged and left out; the others start.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn load(&self) -> Result<HashMap<FunctionKey, Arc<FunctionSpec>>, ApiError> {
        backup::clear(&self.settings.data_dir);
        for record in self.store.functions(None).await? {
            let key = record.key.clone();
            if let Err(error) = self.ready(&record, None).await {
                tracing::error!(%key, %error, "a stored function cannot run");
            }
        }
        for alias in self.store.aliases().await? {
            self.keep_alias(alias);
        }
        Ok(self.functions.read().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// The same again, where other nodes may have changed functions: what is as it was is left alone, what is gone is
    /// forgotten.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn load_again(&self) -> Result<(), ApiError> {
        let _one_at_a_time = self.changing.lock().await;
        let records = self.store.functions(None).await?;
        let known = self.functions.read().unwrap_or_else(PoisonError::into_inner).clone();
        for record in &records {
            // Its policy is no revision of it.
            if let Err(error) = self.ready(record, None).await {
                tracing::error!(key = %record.key, %error, "a stored function cannot run");
            }
        }
        let there: HashSet<&FunctionKey> = records.iter().map(|record| &record.key).collect();
        for gone in known.into_keys().filter(|key| !there.contains(key)) {
            self.forget(&gone);
            self.handle.function_deleted(gone).await;
        }
        let aliases = self.store.aliases().await?;
        self.aliases.write().unwrap_or_else(PoisonError::into_inner).clear();
        for alias in aliases {
            self.keep_alias(alias);
        }
        Ok(())
    }

    /// Makes a function ready: unpacks its code, tells the supervisor, caches it.
    pub(crate) async fn ready(&self, record: &FunctionRecord, code: Option<Bytes>) -> Result<(), ApiError> {
        let config = config(record)?;
        let image = self.image(&config.runtime)?;
        let dir = self.unpacked(record, &config, code).await?;
        let kept = self.store.async_config(record.key.clone()).await?;
        let kept = match kept.as_ref().map(AsyncConfig::kept).transpose() {
            Ok(kept) => kept.unwrap_or_default(),
            // A function that runs by the defaults is better than one that does not run.
            Err(error) => {
                tracing::error!(key = %record.key, %error, "the defaults hold instead");
                AsyncConfig::default()
            }
        };
        let policy = kept.policy(&record.key.project);
        let spec = Arc::new(config.spec(record, &self.settings.region, image, dir, policy));
        self.handle.function_changed(Arc::clone(&spec)).await;
        self.functions.write().unwrap_or_else(PoisonError::into_inner).insert(record.key.clone(), spec);
        Ok(())
    }

    /// Has the node follow another policy for a function's asynchronous requests; it is no new revision.
    pub(crate) async fn set_policy(&self, function: &FunctionSpec, asynchronous: AsyncPolicy) {
        let spec = Arc::new(FunctionSpec { asynchronous, ..function.clone() });
        self.handle.function_changed(Arc::clone(&spec)).await;
        self.functions
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(FunctionKey::clone(&spec.key), spec);
    }

    /// Whether there is such a version of a function.
    pub(crate) fn has(&self, key: &FunctionKey) -> bool {
        self.functions.read().unwrap_or_else(PoisonError::into_inner).contains_key(key)
    }

    /// Unpacks the code of a function where it is not yet.
    pub(crate) async fn unpacked(
        &self,
        record: &FunctionRecord,
        config: &FunctionConfig,
        code: Option<Bytes>,
    ) -> Result<PathBuf, ApiError> {
        let dir = package::dir(&self.settings.data_dir, &record.code_digest, &config.code_filename);
        if dir.is_dir() {
            return Ok(dir);
        }
        let code = match code {
            Some(code) => code,
            None => {
                let code = self.store.code(record.code_digest.clone()).await?;
                code.ok_or_else(|| ApiError::internal("the code of the function is not in the store"))?
            }
        };
        let (to, file) = (dir.clone(), config.code_filename.clone());
        let unpacking = tokio::task::spawn_blocking(move || package::unpack(&code, &file, &to));
        unpacking.await.map_err(|error| ApiError::internal(error.to_string()))??;
        Ok(dir)
    }

    pub(crate) fn image(&self, runtime: &str) -> Result<Arc<RuntimeImage>, ApiError> {
        let serves = |image: &&Arc<RuntimeImage>| image.runtimes.iter().any(|name| name == runtime);
        self.images.iter().find(serves).cloned().ok_or_else(|| {
            let known: Vec<&str> =
                self.images.iter().flat_map(|image| &image.runtimes).map(String::as_str).collect();
            bad("FSS.1005", format!("runtime {runtime:?} is not served here; served are {}", listed(&known)))
        })
    }

    pub(crate) fn forget(&self, key: &FunctionKey) {
        self.functions.write().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    /// Every version of every function of the node that is ready to run.
    pub(crate) fn all_functions(&self) -> Vec<Arc<FunctionSpec>> {
        self.functions.read().unwrap_or_else(PoisonError::into_inner).values().map(Arc::clone).collect()
    }

    /// Looks at the aliases of a function, which the key names in its latest version.
    pub(crate) fn aliases<T>(&self, key: &FunctionKey, look: impl FnOnce(&Aliases) -> T) -> Option<T> {
        self.aliases.read().unwrap_or_else(PoisonError::into_inner).get(key).map(look)
    }

    /// Has an alias that is in the store decide from here on.
    pub(crate) fn keep_alias(&self, alias: AliasRecord) {
        let mut aliases = self.aliases.write().unwrap_or_else(PoisonError::into_inner);
        let of_function = aliases.entry(alias.function.at(LATEST)).or_default();
        of_function.insert(alias.name.as_str().into(), alias);
    }

    /// Forgets an alias of a function, or all of them.
    pub(crate) fn forget_aliases(&self, key: &FunctionKey, alias: Option<&str>) {
        let mut aliases = self.aliases.write().unwrap_or_else(PoisonError::into_inner);
        let Some(of_function) = aliases.get_mut(key) else { return };
        match alias {
            Some(alias) => drop(of_function.remove(alias)),
            None => of_function.clear(),
        }
        if of_function.is_empty() {
            aliases.remove(key);
        }
    }
}

/// The configuration of a stored function.
pub(crate) fn config(record: &FunctionRecord) -> Result<FunctionConfig, ApiError> {
    serde_json::from_str(&record.config)
        .map_err(|error| ApiError::internal(format!("the stored configuration is damaged: {error}")))
}
