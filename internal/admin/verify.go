package admin

import (
	"context"
	"encoding/json"
	"net/http"

	"cri-mini/image"
)

// verify answers with a line of JSON for each layer; the last one has the end
// or the error.
func (s *Server) verify(w http.ResponseWriter, r *http.Request) {
	var request VerifyRequest
	if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	lines, flush := json.NewEncoder(w), http.NewResponseController(w)
	tell := func(v Verification) {
		// A client that left ends the request's context, and with it the work.
		if lines.Encode(v) == nil {
			flush.Flush()
		}
	}
	o := image.VerifyOptions{Repair: request.Repair}
	if request.Username != "" || request.Password != "" {
		o.Auth = &image.Auth{Username: request.Username, Password: request.Password}
	}
	err := s.Images.Verify(r.Context(), request.Images, o, func(v image.Verified) { tell(Verification{Layer: verifiedLayer(v)}) })
	if err != nil {
		tell(Verification{Error: err.Error()})
		return
	}
	tell(Verification{Complete: true})
}

func verifiedLayer(v image.Verified) *VerifiedLayer {
	l := &VerifiedLayer{Layer: v.Layer.String(), Images: v.Images, Repaired: v.Repaired, Whole: v.Whole()}
	for _, d := range v.Differences {
		l.Differences = append(l.Differences, Difference{d.Path, d.What})
	}
	if v.Unknown != nil {
		l.Unknown = v.Unknown.Error()
	}
	if v.Failed != nil {
		l.Failed = v.Failed.Error()
	}
	return l
}

// Verify compares the layers of images with what was written of them.
func (c Client) Verify(ctx context.Context, r VerifyRequest, tell func(VerifiedLayer)) error {
	conn, body, _, err := c.post(ctx, pathVerify, r)
	if err != nil {
		return err
	}
	defer conn.Close()
	lines := json.NewDecoder(body)
	for {
		var v Verification
		if err := lines.Decode(&v); err != nil {
			return c.lost(ctx, err)
		}
		switch {
		case v.Error != "":
			return said(v.Error, "")
		case v.Complete:
			return nil
		case v.Layer != nil:
			tell(*v.Layer)
		}
	}
}
