package webhook

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

const (
	secretPrefix   = "whsec_"
	secretBytesMin = 24 // both by the specification
	secretBytesMax = 64
)

// sign sets the three headers, with a signature by each secret.
func sign(h http.Header, secrets []string, id string, body []byte, now time.Time) error {
	if len(secrets) == 0 {
		return errors.New("the endpoint has no secret to sign with")
	}
	signatures := make([]string, len(secrets))
	for i, secret := range secrets {
		key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, secretPrefix))
		// The library signs with any key, an empty one too.
		if err != nil || !strings.HasPrefix(secret, secretPrefix) || len(key) < secretBytesMin || len(key) > secretBytesMax {
			return fmt.Errorf("secret %d of %d is not %s and %d to %d bytes in base64", i+1, len(secrets), secretPrefix, secretBytesMin, secretBytesMax)
		}
		signer, err := standardwebhooks.NewWebhookRaw(key)
		if err != nil {
			return fmt.Errorf("sign: %w", err)
		}
		if signatures[i], err = signer.Sign(id, now, body); err != nil {
			return fmt.Errorf("sign: %w", err)
		}
	}
	h.Set(standardwebhooks.HeaderWebhookID, id)
	h.Set(standardwebhooks.HeaderWebhookTimestamp, strconv.FormatInt(now.Unix(), 10))
	h.Set(standardwebhooks.HeaderWebhookSignature, strings.Join(signatures, " "))
	return nil
}
