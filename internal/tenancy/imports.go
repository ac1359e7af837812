package tenancy

import (
	"time"

	"seenby/domain"
)

// OpenTenant gives what is needed to append for a tenant without an API key of its own. CodeNotFound: there is no open one of
// this id. CodeMisconfigured: the secret is not the installation's.
func OpenTenant(in *domain.Installation, secret *Secret, tenant domain.TenantID) (TenantHandle, error) {
	t, err := open(in, tenant)
	if err != nil {
		return TenantHandle{}, err
	}
	if err := secret.check(in.Fingerprint); err != nil {
		return TenantHandle{}, err
	}
	key, err := secret.Unwrap(tenant, t.Created.WrappedKey)
	return TenantHandle{ID: tenant, Key: key}, err
}

// BeginImport decides that a process works on an import from now on, whoever did before: it is found by its id, and goes on
// where it stands. since is where the log ended before the process appends anything; where another process left it open
// what it had appended, that stays open. One that is finished gives no event.
func BeginImport(in *domain.Installation, now time.Time, tenant domain.TenantID, id string, run domain.RunID, since []domain.Position) (domain.ImportRecorded, []domain.Event, error) {
	t, err := open(in, tenant)
	if err != nil {
		return domain.ImportRecorded{}, nil, err
	}
	record, known := t.Imports[id]
	if record.Finished() {
		return record, nil, nil
	}
	if !known {
		record = domain.ImportRecorded{Tenant: tenant, ImportID: id, BegunAt: now}
	}
	if len(record.Since) == 0 {
		record.Since = since
	}
	record.Run, record.RecordedAt = run, now
	return record, []domain.Event{record}, nil
}

// RecordImport decides how far an import is. CodeConflict: another process works on it now, and this one must end.
func RecordImport(in *domain.Installation, record domain.ImportRecorded) ([]domain.Event, error) {
	t, err := open(in, record.Tenant)
	if err != nil {
		return nil, err
	}
	if stands := t.Imports[record.ImportID]; stands.Run != record.Run {
		return nil, domain.Errorf(domain.CodeConflict, "another process has taken this import over at %s", stands.RecordedAt.Format(time.RFC3339))
	}
	return []domain.Event{record}, nil
}
