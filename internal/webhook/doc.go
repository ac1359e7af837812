// Package webhook is how a tenant's endpoint is called: told counts by POST, and asked what it has by GET on the same URL.
//
// Client is its main type. Calls follow the Standard Webhooks specification (https://www.standardwebhooks.com): the headers
// webhook-id, webhook-timestamp and webhook-signature, the latter with one HMAC-SHA-256 for each secret of the endpoint.
//
// # Guarantees
//
// An address that is not public is not connected to, unless the endpoint allows it: CheckURL looks when an endpoint is set,
// and the dialer looks again at the very address that it connects to, so a name that resolves otherwise later helps
// nobody. Redirects are not followed and proxies of the environment are not used, for the same reason. A call ends within the
// client's time, and of an answer only a bounded part is read.
//
// # How it fails
//
// Send never returns an error: whatever happens is an Answer, whose Outcome says what it means for what was sent. A call is
// made once; to try again is up to the caller. Values and CheckURL return errors that the owner of the endpoint can act on.
// No answer and no error holds a secret, or the query of the URL.
package webhook
