-- What the next version's step might do, and the version after it: it may be run more than once. A step that leaves the
-- programs of the version before at work adds columns with defaults, tables and indexes. Here every table has one more
-- column, so that whatever reads or writes without naming its columns fails.
DO $$
DECLARE
    t name;
    next integer := (SELECT version + 1 FROM quell_schema);
BEGIN
    FOR t IN SELECT relname FROM pg_class
             WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r' AND relname <> 'quell_schema' LOOP
        EXECUTE format('ALTER TABLE %I ADD COLUMN later_%s TEXT NOT NULL DEFAULT ''x''', t, next);
    END LOOP;
    EXECUTE format('CREATE TABLE later_%s (name TEXT PRIMARY KEY)', next);
    UPDATE quell_schema SET version = version + 1, oldest_program = version;
END $$;
