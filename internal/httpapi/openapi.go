package httpapi

import (
	"encoding/json"
	"fmt"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"
	"github.com/go-chi/chi/v5"
)

// contractVersion is that of the REST contract, not of the program.
const contractVersion = "1.0.0"

const contractText = `Seenby counts who saw what.

Every write answers with a **Seenby-Position** header. Send it back as **Seenby-Wait-For** on a GET to read your
own writes: the answer comes once the read models that it reads have passed it, within the seconds of
**Prefer: wait=N** (default 5, at most 30), else 504 with code not_yet_applied. Several tokens may stand in one
header, separated by commas.

Every error is application/problem+json; its *code* is what programs look at. The Content-Type of a request is
not looked at: a body is JSON.`

func openAPIConfig() huma.Config {
	cfg := huma.DefaultConfig("Seenby", contractVersion)
	// No links to schemas in answers, no pages, no other spellings of the document: it is served by us, as it is
	// committed.
	cfg.CreateHooks, cfg.DocsPath, cfg.SchemasPath, cfg.OpenAPIPath = nil, "", "", ""
	cfg.Info.Description = contractText
	cfg.Info.License = &huma.License{Name: "Apache-2.0", Identifier: "Apache-2.0"}
	cfg.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"key": {Type: "http", Scheme: "bearer", Description: "An API key of the tenant, seenby_..."},
	}
	return cfg
}

// OpenAPI is the contract as JSON, indented: what docs/openapi.json holds and /openapi.json serves.
func OpenAPI() ([]byte, error) {
	s := &server{cfg: Config{}.withDefaults()}
	api := humachi.New(chi.NewRouter(), openAPIConfig())
	s.register(api)
	return marshalOpenAPI(api)
}

func marshalOpenAPI(api huma.API) ([]byte, error) {
	b, err := json.MarshalIndent(api.OpenAPI(), "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode OpenAPI: %w", err)
	}
	return append(b, '\n'), nil
}
