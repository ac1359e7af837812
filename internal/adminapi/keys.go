package adminapi

import (
	"context"

	"seenby/domain"
	"seenby/internal/httpapi"
	"seenby/internal/tenancy"
)

// KeyInput is the body that creates an API key.
type KeyInput struct {
	Label string `json:"label,omitempty" maxLength:"255" doc:"What the key is for, for people."`
}

// Keys is the answer of GET /v1/tenants/{tenant}/keys.
type Keys struct {
	_    struct{} `json:"-" additionalProperties:"true"`
	Keys []Key    `json:"keys" nullable:"false"`
}

func (s *server) listKeys(ctx context.Context, req *TenantPath) (*answered[Keys], error) {
	in, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	t, err := tenancy.TenantOf(in, req.id())
	if err != nil {
		return nil, err
	}
	return answer(Keys{Keys: KeysOf(t)}), nil
}

func (s *server) createKey(ctx context.Context, req *struct {
	TenantPath
	RawBody []byte
}) (*answered[IssuedKey], error) {
	var body KeyInput
	if err := httpapi.ParseBody(req.RawBody, &body); err != nil {
		return nil, err
	}
	var plain string
	var issued domain.KeyIssued
	in, err := s.change(ctx, func(in *domain.Installation) (events []domain.Event, err error) {
		if plain, issued, err = tenancy.IssueKey(in, s.deps.Rand, s.deps.Now(), req.id(), body.Label); err != nil {
			return nil, err
		}
		return []domain.Event{issued}, nil
	})
	if err != nil {
		return nil, err
	}
	return answer(IssuedKey{Key: KeyOf(issued.KeyID, in.Tenants[req.id()].Keys[issued.KeyID]), Text: plain}), nil
}

func (s *server) revokeKey(ctx context.Context, req *struct {
	TenantPath
	Key string `path:"key" doc:"The key's id."`
}) (*answered[Key], error) {
	var id string
	in, err := s.change(ctx, func(in *domain.Installation) (events []domain.Event, err error) {
		id, events, err = tenancy.RevokeKey(in, s.deps.Now(), req.id(), req.Key)
		return events, err
	})
	if err != nil {
		return nil, err
	}
	return answer(KeyOf(id, in.Tenants[req.id()].Keys[id])), nil
}
