# frozen_string_literal: true

require 'grpc'
require 'bridge/rpc/v1/sidecar_services_pb'
require 'fluent/plugin/bridge/entries'
require 'fluent/plugin/bridge/sidecar_error'
require 'fluent/plugin/bridge/version'

module Fluent
  module Plugin
    module Bridge
      # The connection to the sidecar. Any number of threads may call it at once.
      #
      # It is opened by the first call, in the process that calls: gRPC does not survive a fork.
      class Sidecar
        V1 = ::Bridge::Rpc::V1
        private_constant :V1

        # Fields of a ProcessRequest beside the entries, at most: keys, lengths, the count.
        OVERHEAD = 64
        private_constant :OVERHEAD

        # https://github.com/grpc/grpc/blob/master/include/grpc/impl/channel_arg_names.h
        CHANNEL = {
          'grpc.primary_user_agent' => "fluent-plugin-bridge/#{VERSION}",
          'grpc.max_receive_message_length' => -1, # results may be larger than requests
          # A sidecar that was started again is found within a second; by default it may take two minutes.
          'grpc.initial_reconnect_backoff_ms' => 100,
          'grpc.max_reconnect_backoff_ms' => 1000,
          # A whole reply without asking for more: by default the window begins with 64 KiB, and each
          # doubling of it takes a round trip.
          'grpc.http2.lookahead_bytes' => 4 << 20,
          # The address is the sidecar's own, whatever http_proxy says.
          'grpc.enable_http_proxy' => 0
        }.freeze
        private_constant :CHANNEL

        # @return [String]
        attr_reader :address

        # @param address [String] `unix:/path` or `host:port`
        # @param tls [Array<String, nil>, nil] authorities, private key and certificate in PEM; nil for no TLS
        # @param server_name [String, nil] the name in the sidecar's certificate, if it is not the address's
        def initialize(address, tls: nil, server_name: nil)
          @address = address
          @tls = tls
          @server_name = server_name
          @mutex = Mutex.new
          @channel = @stub = @limit = nil
        end

        # Runs a batch through the user's filters. A batch larger than the sidecar takes goes in pieces.
        #
        # @param tag [String] the events' tag
        # @param entries [String] the events, packed
        # @param count [Integer] how many they are, 0 if that is not known
        # @param timeout [Numeric] seconds that all of it may take
        # @return [Array<::Bridge::Rpc::V1::Stream>] the results; of one tag in the order of the events
        # @raise [Unavailable, VersionMismatch, Refused]
        def process(tag, entries, count, timeout)
          deadline = Time.now + timeout
          tag = tag.b
          entries = entries.b # the protobuf gem encodes other strings into bytes, which fails for those that hold any
          limit = limit(deadline) - OVERHEAD - tag.bytesize
          return call(tag, entries, count, deadline) if entries.bytesize <= limit

          pieces = Entries.cut(entries, limit)
          check_sizes(pieces, limit, tag)
          pieces.flat_map { |piece| call(tag, piece, 0, deadline) }
        rescue GRPC::BadStatus => e
          @limit = nil # whoever answers next may be another
          raise translated(e, "tag #{tag}, #{entries.bytesize} bytes"), cause: nil
        rescue GRPC::Core::CallError, Google::Protobuf::ParseError => e
          @limit = nil
          raise Unavailable, "#{self} answers what is no answer (tag #{tag}): #{e.message}: check that `address` is a sidecar's"
        end

        # Closes the connection.
        def close
          @mutex.synchronize do
            @channel&.close
            @channel = @stub = @limit = nil
          end
        end

        # @return [String] for messages
        def to_s
          "sidecar at #{@address}"
        end

        private

        def call(tag, entries, count, deadline)
          @stub.process(V1::ProcessRequest.new(tag: tag, entries: entries, count: count), deadline: deadline).streams.to_a
        end

        # Sent all the same it would be answered with RESOURCE_EXHAUSTED, which is: come again.
        def check_sizes(pieces, limit, tag)
          size = pieces.map(&:bytesize).max
          return if size <= limit

          raise Refused, "#{self} takes no event of #{size} bytes (tag #{tag}), the most is #{limit}: raise its rpc.max_message_bytes"
        end

        # The largest request, after the first call on a connection asked who answers there.
        def limit(deadline)
          @limit || @mutex.synchronize { @limit ||= describe(deadline) }
        end

        def describe(deadline)
          @stub ||= V1::Sidecar::Stub.new(nil, nil, channel_override: open_channel)
          described = @stub.describe(V1::DescribeRequest.new(plugin_version: VERSION), deadline: deadline)
          described.max_request_bytes
        end

        def open_channel
          options = CHANNEL
          options = options.merge(GRPC::Core::Channel::SSL_TARGET => @server_name) if @server_name
          # Only the kernel of a machine that is there tells of an end: ask after one that may be gone.
          options = options.merge('grpc.keepalive_time_ms' => 30_000, 'grpc.keepalive_timeout_ms' => 10_000) unless unix?
          credentials = @tls ? GRPC::Core::ChannelCredentials.new(*@tls) : :this_channel_is_insecure
          @channel = GRPC::Core::Channel.new(@address, options, credentials)
        end

        def unix?
          @address.start_with?('unix:')
        end

        def translated(status, batch)
          said = "#{status.class.name.split('::').last} (#{status.code}): #{status.details}"
          case status
          when GRPC::InvalidArgument
            Refused.new("#{self} finds no events in the batch (#{batch}): #{said}")
          when GRPC::Unimplemented
            VersionMismatch.new("#{self} does not know this plugin's contract, bridge.rpc.v1 (#{batch}): #{said}: " \
                                "check `address`, and update fluent-bridge to the version of this plugin, #{VERSION}")
          when GRPC::FailedPrecondition
            VersionMismatch.new("#{self} and this plugin, version #{VERSION}, cannot work together (#{batch}): #{said}")
          else
            Unavailable.new("#{self} #{fault(status)} (#{batch}): #{said}", pushback: pushback(status))
          end
        end

        def fault(status)
          case status
          when GRPC::DeadlineExceeded then 'gave no answer in time: see its log, or raise `timeout`'
          when GRPC::Unavailable
            return 'cannot take it now' unless status.details.start_with?('failed to connect')

            'is not there: start it, or check `address`'
          when GRPC::ResourceExhausted then 'is full'
          else 'failed: see its log'
          end
        end

        # https://github.com/grpc/proposal/blob/master/A6-client-retries.md#pushback
        def pushback(status)
          milliseconds = Integer(status.metadata['grpc-retry-pushback-ms'], exception: false)
          milliseconds / 1000.0 if milliseconds&.positive?
        end
      end
    end
  end
end
