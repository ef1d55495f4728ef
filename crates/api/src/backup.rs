//! `GET /quell/v1/backup`: everything the node must not forget, as one file, while it works on.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use axum::{
    body::Body,
    extract::State,
    http::header,
    response::{IntoResponse as _, Response},
};
use tokio::fs::File;
use tokio_util::io::ReaderStream;

use crate::{auth::Head, error::ApiError, openapi::Refusals, registry::Api, response::set};

/// Read and sent at once.
const PIECE: usize = 256 << 10;
/// Names of copies under way.
const PREFIX: &str = ".backup-";

/// Everything the node must not forget, as one SQLite file.
///
/// The copy is made in the data folder, which has a disk for it, and gone once it was sent.
#[utoipa::path(get, path = "/quell/v1/backup", tag = "node", responses(
    (status = 200, description = "the file", body = Vec<u8>, content_type = "application/vnd.sqlite3"), Refusals))]
pub(crate) async fn backup(State(api): State<Arc<Api>>, head: Head) -> Result<Response, ApiError> {
    let caller = api.operator(&head)?;
    let to = api.settings.data_dir.join(format!("{PREFIX}{}", uuid::Uuid::new_v4().simple()));
    let copy = Copy(to.clone());
    let size = api.store.backup(to.clone()).await?;
    let opened = File::open(&to).await;
    let file = opened.map_err(|error| ApiError::internal(format!("the copy cannot be read: {error}")))?;
    tracing::info!(target: "audit", by = caller.credential, size, "audit: backup made");
    // Whoever has it open can read it to its end.
    drop(copy);
    let mut response = Body::from_stream(ReaderStream::with_capacity(file, PIECE)).into_response();
    set(&mut response, header::CONTENT_TYPE, "application/vnd.sqlite3");
    set(&mut response, header::CONTENT_LENGTH, &size.to_string());
    Ok(response)
}

/// Removes the copies that a life which was killed left half made.
pub(crate) fn clear(data: &Path) {
    let entries = std::fs::read_dir(data).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX)) {
        drop(Copy(entry.path()));
    }
}

/// A file that is removed when this is dropped.
struct Copy(PathBuf);

impl Drop for Copy {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, path = %self.0.display(), "a copy stays behind");
        }
    }
}
