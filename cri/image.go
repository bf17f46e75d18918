package cri

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	crierrors "k8s.io/cri-api/pkg/errors"

	"cri-mini/image"
	"cri-mini/image/registry"
	"cri-mini/podsandbox"
)

func (s *Server) PullImage(ctx context.Context, r *criapi.PullImageRequest) (*criapi.PullImageResponse, error) {
	name, err := s.imageName("image", r.Image)
	if err != nil {
		return nil, err
	}
	img, err := s.Images.Pull(ctx, name, image.PullOptions{Auth: credentials(r.Auth)})
	if err != nil {
		return nil, pullError(nameError("image", err))
	}
	return &criapi.PullImageResponse{ImageRef: img.ID}, nil
}

// pullError puts the word in front by which the kubelet knows that another
// try may succeed. It finds it only in an Unknown error.
func pullError(err error) error {
	if code(err) == codes.Unknown && errors.Is(err, registry.ErrUnavailable) {
		return status.Error(codes.Unknown, crierrors.ErrRegistryUnavailable.Error()+": "+err.Error())
	}
	return rpcError(err)
}

func credentials(a *criapi.AuthConfig) *image.Auth {
	if a == nil {
		return nil
	}
	return &image.Auth{
		Username:      a.Username,
		Password:      a.Password,
		Auth:          a.Auth,
		ServerAddress: a.ServerAddress,
		IdentityToken: a.IdentityToken,
		RegistryToken: a.RegistryToken,
	}
}

func (s *Server) ImageStatus(_ context.Context, r *criapi.ImageStatusRequest) (*criapi.ImageStatusResponse, error) {
	name, err := s.imageName("image", r.Image)
	if err != nil {
		return nil, err
	}
	img, err := s.Images.Get(name)
	if errors.Is(err, image.ErrNotFound) {
		return &criapi.ImageStatusResponse{}, nil // no error, says the interface
	}
	if err != nil {
		return nil, rpcError(nameError("image", err))
	}
	answer := &criapi.ImageStatusResponse{Image: imageMessage(img)}
	if r.Verbose {
		answer.Info, err = verbose(map[string]any{"info": map[string]any{
			"config": img.Config,
			"layers": img.Layers,
		}})
		if err != nil {
			return nil, rpcError(err)
		}
	}
	return answer, nil
}

func (s *Server) ListImages(_ context.Context, r *criapi.ListImagesRequest) (*criapi.ListImagesResponse, error) {
	if wanted := r.GetFilter().GetImage(); wanted.GetImage() != "" || wanted.GetRuntimeHandler() != "" {
		name, err := s.imageName("filter.image", wanted)
		if err != nil {
			return nil, err
		}
		img, err := s.Images.Get(name)
		if errors.Is(err, image.ErrNotFound) {
			return &criapi.ListImagesResponse{}, nil
		}
		if err != nil {
			return nil, rpcError(nameError("filter.image", err))
		}
		return &criapi.ListImagesResponse{Images: []*criapi.Image{imageMessage(img)}}, nil
	}
	answer := &criapi.ListImagesResponse{}
	for _, img := range s.Images.List() {
		answer.Images = append(answer.Images, imageMessage(img))
	}
	return answer, nil
}

func (s *Server) RemoveImage(_ context.Context, r *criapi.RemoveImageRequest) (*criapi.RemoveImageResponse, error) {
	name, err := s.imageName("image", r.Image)
	if err != nil {
		return nil, err
	}
	if err := s.Images.Remove(name); err != nil && !errors.Is(err, image.ErrNotFound) {
		return nil, rpcError(nameError("image", err))
	}
	return &criapi.RemoveImageResponse{}, nil
}

func (s *Server) ImageFsInfo(context.Context, *criapi.ImageFsInfoRequest) (*criapi.ImageFsInfoResponse, error) {
	bytes, inodes := s.Images.Usage()
	images := &criapi.FilesystemUsage{
		Timestamp:  time.Now().UnixNano(),
		FsId:       &criapi.FilesystemIdentifier{Mountpoint: s.mountpoint()},
		UsedBytes:  number(bytes),
		InodesUsed: number(inodes),
	}
	layers := s.Pods.WritableUsage()
	containers := &criapi.FilesystemUsage{
		Timestamp:  layers.At.UnixNano(),
		FsId:       images.FsId,
		UsedBytes:  number(layers.Bytes),
		InodesUsed: number(layers.Inodes),
	}
	return &criapi.ImageFsInfoResponse{
		ImageFilesystems:     []*criapi.FilesystemUsage{images},
		ContainerFilesystems: []*criapi.FilesystemUsage{containers},
	}, nil
}

// mountpoint is where all that we write lies. The kubelet measures the file
// system that this path is on.
func (s *Server) mountpoint() string { return filepath.Clean(s.Node.Root) }

// imageName is what a request calls an image. Images are the same for all
// handlers; the annotations are the pod's and choose nothing.
func (s *Server) imageName(field string, spec *criapi.ImageSpec) (string, error) {
	if handler := spec.GetRuntimeHandler(); handler != "" && !s.hasHandler(handler) {
		return "", invalidArgument(field+".runtime_handler", handler, "no such handler")
	}
	if spec.GetImage() == "" {
		return "", invalidArgument(field+".image", "", "is missing")
	}
	return spec.Image, nil
}

// nameError says where in the request a name stands that is none.
func nameError(field string, err error) error {
	if wrong := (*image.NameError)(nil); errors.As(err, &wrong) {
		return &podsandbox.InvalidError{Field: field + ".image", Value: wrong.Name, Reason: wrong.Reason}
	}
	return err
}

func (s *Server) hasHandler(name string) bool {
	return slices.ContainsFunc(s.Node.Handlers, func(h *criapi.RuntimeHandler) bool { return h.Name == name })
}

func imageMessage(img image.Image) *criapi.Image {
	m := &criapi.Image{
		Id:          img.ID,
		RepoTags:    img.Tags,
		RepoDigests: img.Digests,
		Size:        img.Size,
		Spec:        &criapi.ImageSpec{Annotations: img.Annotations},
		Pinned:      img.Pinned,
	}
	// A user by number or by name, whichever the image says; the group is not
	// asked for.
	user, _, _ := strings.Cut(img.Config.User, ":")
	if uid, err := strconv.ParseInt(user, 10, 64); err == nil {
		m.Uid = &criapi.Int64Value{Value: uid}
	} else {
		m.Username = user
	}
	return m
}
