// Package tenancy keeps the tenants of an installation: who may call (API keys), under which key a tenant's
// people, texts and tokens are kept, and within which limits.
//
// Registry is its main type: the fold of the topic tenants in memory, followed from the log, so that apis and
// gates need no database to know a caller. Secret seals the tenants' keys. CreateTenant, SetLimits, CloseTenant,
// IssueKey, RevokeKey, RotateSecret, CreateEndpoint, DisableEndpoint, EnableEndpoint, RotateEndpoint and SetRelay are
// the operators' commands: they decide events on what stands, and change nothing themselves. Seal and Open make the
// opaque tokens that leave the api; WebhookSecret derives what signs the calls to a tenant's core system.
//
// Guarantees: a registry answers nothing before it has read the log to the end asked at the start, so that a
// revoked key is never accepted because its revocation was not read yet; afterwards it keeps answering from
// its last state while Kafka is away. It fails by CodeUnavailable (not read yet), CodeUnauthorized and
// CodeInvalid; with CodeMisconfigured (another secret, other partition counts) it stops.
package tenancy
