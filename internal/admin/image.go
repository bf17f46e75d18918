package admin

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"

	"cri-mini/image"
)

// pull answers with a line of JSON at each step; the last one has the image or
// the error.
func (s *Server) pull(w http.ResponseWriter, r *http.Request) {
	var request PullRequest
	if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	lines, flush := json.NewEncoder(w), http.NewResponseController(w)
	tell := func(p Progress) {
		// A client that left ends the request's context, and with it the pull.
		if lines.Encode(p) == nil {
			flush.Flush()
		}
	}
	var auth *image.Auth
	if request.Username != "" || request.Password != "" {
		auth = &image.Auth{Username: request.Username, Password: request.Password}
	}
	img, err := s.Images.Pull(r.Context(), request.Image, image.PullOptions{Auth: auth, Progress: func(p image.Progress) {
		tell(Progress{Layer: &Layer{Digest: p.Layer.String(), Phase: p.Phase, Done: p.Done, Total: p.Total}})
	}})
	if err != nil {
		tell(Progress{Error: err.Error(), Hint: pullHint(err, request.Image, s.RegistryConfigDir)})
		return
	}
	tell(Progress{ID: img.ID})
}

func (s *Server) importImage(ctx context.Context, r ImportRequest) (ImportAnswer, error) {
	if r.Rootfs || isRootfs(r.Path) {
		img, err := s.Images.ImportRootfs(ctx, r.Path, r.Name, image.Config{
			Entrypoint: r.Entrypoint, Cmd: r.Cmd, Env: r.Env, WorkingDir: r.WorkingDir, User: r.User,
		})
		if err != nil {
			return ImportAnswer{}, err
		}
		return ImportAnswer{Images: []Imported{{ID: img.ID, Tags: img.Tags}}}, nil
	}
	images, err := s.Images.ImportArchive(ctx, r.Path, r.Name)
	if err != nil {
		return ImportAnswer{}, &Advised{Words: err.Error(), Hint: importHint(err)}
	}
	var answer ImportAnswer
	for _, img := range images {
		answer.Images = append(answer.Images, Imported{ID: img.ID, Tags: img.Tags})
	}
	return answer, nil
}

// isRootfs takes a folder for a root file system unless it is an OCI layout.
func isRootfs(path string) bool {
	info, err := os.Stat(path)
	if err != nil || !info.IsDir() {
		return false
	}
	_, err = os.Stat(filepath.Join(path, "oci-layout"))
	return err != nil
}
