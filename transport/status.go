package transport

import (
	"context"
	"errors"
	"io"
	"slices"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/gatesync/gatesync/cluster"
)

// What an ErrorInfo detail of ours says.
const (
	errorDomain     = "gatesync"
	reasonNotLeader = "NOT_LEADER"
	reasonNoQuorum  = "NO_QUORUM"
	reasonNotMember = "NOT_MEMBER"
	// reasonNotCommitted comes beside another reason, or alone.
	reasonNotCommitted = "NOT_COMMITTED"
	metaLeader         = "leader"
)

// RemoteError is an error that another node answered with. It unwraps to the
// errors of package cluster or context that it stands for, if it stands for any.
type RemoteError struct {
	status *status.Status
	is     error // may be nil
}

func (e *RemoteError) Error() string { return e.status.Message() }

// Unwrap returns what the status stands for.
func (e *RemoteError) Unwrap() error { return e.is }

// GRPCStatus lets status.Code see the code, also when a RemoteError is passed on.
func (e *RemoteError) GRPCStatus() *status.Status { return e.status }

// ToStatus turns an error of a handler into the status that FromStatus turns
// back at the caller.
func ToStatus(err error) error {
	if err == nil {
		return nil
	}
	s, _ := status.FromError(toStatus(err)) // always a status
	// What a status inside the error says of one attempt is not passed on.
	p := s.Proto()
	p.Details = slices.DeleteFunc(p.GetDetails(), func(d *anypb.Any) bool {
		i := new(errdetails.ErrorInfo)
		return d.MessageIs(i) && d.UnmarshalTo(i) == nil && i.GetDomain() == errorDomain && i.GetReason() == reasonNotCommitted
	})
	if errors.Is(err, cluster.ErrNotCommitted) {
		if d, err := anypb.New(info(reasonNotCommitted, nil)); err == nil {
			p.Details = append(p.Details, d)
		}
	}
	return status.FromProto(p).Err()
}

func toStatus(err error) error {
	var notLeader *cluster.NotLeaderError
	switch {
	case errors.As(err, &notLeader):
		return detailed(codes.FailedPrecondition, err, reasonNotLeader, map[string]string{metaLeader: string(notLeader.Leader)})
	case errors.Is(err, cluster.ErrNoQuorum):
		return detailed(codes.Unavailable, err, reasonNoQuorum, nil)
	case errors.Is(err, cluster.ErrNotMember):
		return detailed(codes.PermissionDenied, err, reasonNotMember, nil)
	}
	if _, ok := status.FromError(err); ok {
		return err // a status already, perhaps wrapped
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return status.Error(codes.DeadlineExceeded, err.Error())
	case errors.Is(err, context.Canceled):
		return status.Error(codes.Canceled, err.Error())
	}
	return status.Error(codes.Unknown, err.Error())
}

func detailed(code codes.Code, err error, reason string, meta map[string]string) error {
	s, derr := status.New(code, err.Error()).WithDetails(info(reason, meta))
	if derr != nil {
		return status.Error(code, err.Error())
	}
	return s.Err()
}

func info(reason string, meta map[string]string) *errdetails.ErrorInfo {
	return &errdetails.ErrorInfo{Domain: errorDomain, Reason: reason, Metadata: meta}
}

// FromStatus turns the error of a call into a *RemoteError that errors.Is and
// errors.As see through. What is no status stays what it is.
func FromStatus(err error) error {
	var remote *RemoteError
	if err == nil || errors.Is(err, io.EOF) || errors.As(err, &remote) {
		return err
	}
	s, ok := status.FromError(err)
	if !ok {
		return err
	}
	return &RemoteError{status: s, is: meaning(s)}
}

// meaning is what the status stands for, nil where that is nothing of ours.
func meaning(s *status.Status) error {
	var is []error
	for _, d := range s.Details() {
		info, ok := d.(*errdetails.ErrorInfo)
		if !ok || info.GetDomain() != errorDomain {
			continue
		}
		switch info.GetReason() {
		case reasonNotLeader:
			is = append(is, &cluster.NotLeaderError{Leader: cluster.NodeID(info.GetMetadata()[metaLeader])})
		case reasonNoQuorum:
			is = append(is, cluster.ErrNoQuorum)
		case reasonNotMember:
			is = append(is, cluster.ErrNotMember)
		case reasonNotCommitted:
			is = append(is, cluster.ErrNotCommitted)
		}
	}
	switch s.Code() {
	case codes.DeadlineExceeded:
		is = append(is, context.DeadlineExceeded)
	case codes.Canceled:
		is = append(is, context.Canceled)
	}
	return errors.Join(is...)
}

// StatusServerOptions make a gRPC server answer with ToStatus. The servers of
// this package have them already; the local socket's server wants them too.
func StatusServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			resp, err := next(ctx, req)
			return resp, ToStatus(err)
		}),
		grpc.ChainStreamInterceptor(func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
			return ToStatus(next(srv, ss))
		}),
	}
}

// StatusDialOptions make calls return what FromStatus makes of their errors.
// The connections of this package have them already.
func StatusDialOptions() []grpc.DialOption { return translateWith(FromStatus) }

func translateWith(translate func(error) error) []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, call grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			return translate(call(ctx, method, req, reply, cc, opts...))
		}),
		grpc.WithChainStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			cs, err := open(ctx, desc, cc, method, opts...)
			if err != nil {
				return nil, translate(err)
			}
			return translatedStream{cs, translate}, nil
		}),
	}
}

type translatedStream struct {
	grpc.ClientStream
	translate func(error) error
}

func (s translatedStream) RecvMsg(m any) error { return s.translate(s.ClientStream.RecvMsg(m)) }
func (s translatedStream) SendMsg(m any) error { return s.translate(s.ClientStream.SendMsg(m)) }
