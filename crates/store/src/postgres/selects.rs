//! Requests that are not over and that another node has, or none: what a node does not see by itself.

use super::{
    connection::{Db, row, rows},
    fault::Fault,
    group::id,
    invocations::{COLUMNS, WIDTH, clamped, label_text, read},
};
use crate::{Elsewhere, ElsewherePage, ElsewhereQuery};

/// Selects now, in one look: rows and total are of the same moment. What is not over is looked through by an index of
/// nothing else: the history costs it nothing.
pub(crate) async fn elsewhere(db: &Db, node: &str, query: &ElsewhereQuery) -> Result<ElsewherePage, Fault> {
    let ElsewhereQuery { project, function, .. } = query;
    let named = |part: fn(&crate::FunctionFilter) -> &str| function.as_ref().map(part);
    let (package, name) = (named(|function| &function.package), named(|function| &function.name));
    // Of another project nothing is meant, whatever its function is called.
    let foreign = function.as_ref().is_some_and(|function| function.project != *project);
    let versions = function.as_ref().map(|function| function.versions.as_slice()).unwrap_or_default();
    let (parent, labels) = (query.parent.map(id), label_text(&query.labels));
    let labelled = if labels.is_none() { "$8::text IS NULL" } else { "i.labels @> $8::text::jsonb" };
    let terms = format!(
        "FROM invocations i WHERE i.status IN (0, 1) AND i.owner IS DISTINCT FROM $1 AND i.project = $2 AND NOT $3::bool
         AND ($4::text IS NULL OR (i.package, i.name) = ($4::text, $5::text))
         AND (cardinality($6::text[]) = 0 OR i.version = ANY($6::text[]))
         AND ($7::uuid IS NULL OR i.parent = $7) AND {labelled}
         AND ($9::int8 IS NULL OR i.created_ms < $9) AND ($10::bool IS NULL OR (i.status = 1) = $10)
         AND ($11::int8 IS NULL OR i.status = 0 OR i.started_ms < $11)"
    );
    let (before, running, started) = (query.created_before_ms, query.running, query.started_before_ms);
    let (after, limit) = (clamped(query.after), i64::from(query.limit));
    let counted = format!("SELECT count(*) {terms}");
    let select = format!("SELECT {COLUMNS}, i.owner, i.seq {terms} AND i.seq > $12 ORDER BY i.seq LIMIT $13");
    db.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let looked = async {
        let values: super::connection::Params<'_> = &[
            &node, project, &foreign, &package, &name, &versions, &parent, &labels, &before, &running,
            &started, &after, &limit,
        ];
        let total = row(db, &counted, &values[..11]).await?;
        Ok::<_, Fault>((total, rows(db, &select, values).await?))
    };
    let looked = looked.await;
    db.batch_execute("ROLLBACK").await?;
    let (total, found) = looked?;
    let total: i64 = total.map(|row| row.try_get(0)).transpose()?.unwrap_or_default();
    let found = found.iter().map(|row| {
        let place: i64 = row.try_get(WIDTH + 1)?;
        Ok(Elsewhere { row: read(row)?, owner: row.try_get(WIDTH)?, place: place.cast_unsigned() })
    });
    Ok(ElsewherePage { rows: found.collect::<Result<_, Fault>>()?, total: total.cast_unsigned() })
}
